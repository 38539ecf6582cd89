"""Two agents in one conversation: who speaks, with which prompt and tools, also after a replay."""

from __future__ import annotations

import json

import pytest
from backends import on_both
from models.servers import ModelServer
from weather import City

from polos import Agent, Polos, WorkflowContext, tool

pytestmark = pytest.mark.timeout(120)


@tool(id="same_name", description="Of billing")
async def of_billing(ctx: WorkflowContext, input: City) -> str:
    return f"invoice for {input.city}"


billing = Agent(
    id="handoff-billing",
    provider="openai",
    model="gpt-4o-mini",
    system_prompt="You do billing.",
    description="Knows invoices.",
    tools=[of_billing],
)


@tool(id="same_name", description="Of triage")
async def of_triage(ctx: WorkflowContext, input: City) -> str:
    return "of triage"


triage = Agent(
    id="handoff-triage",
    provider="openai",
    model="gpt-4o",
    system_prompt="You sort requests.",
    tools=[of_triage],
    handoffs=[billing],
)


@on_both
async def test_another_agent_goes_on_with_the_conversation(polos: Polos, model: ModelServer) -> None:
    model.calls(("transfer_to_handoff-billing", {"reason": "an invoice"}), ("same_name", {"city": "Rome"}))
    model.calls(("same_name", {"city": "Oslo"}))
    model.says("Here is your invoice.")
    stream = await triage.stream(polos, "My invoice, please.")
    events = [event async for event in stream.events]
    result = await stream.result()
    first, second, third = (request.body for request in model.requests)

    assert (result.result, result.agent_id, result.total_steps) == (
        "Here is your invoice.",
        "handoff-billing",
        3,
    )
    assert [found.result for found in result.tool_results] == [
        {"agent": "handoff-billing"},
        "of triage",
        "invoice for Oslo",
    ]
    assert [body["model"] for body in (first, second, third)] == ["gpt-4o", "gpt-4o-mini", "gpt-4o-mini"]
    assert second["instructions"] == third["instructions"] == "You do billing."
    assert [one["name"] for one in first["tools"]] == ["same_name", "transfer_to_handoff-billing"]
    assert [one["description"] for one in second["tools"]] == ["Of billing"]
    assert second["input"][0]["content"] == "My invoice, please."
    handoffs = [event.data for event in events if event.event_type == "agent_handoff"]
    assert [(data["step"], data["agent_id"]) for data in handoffs] == [(1, "handoff-billing")]


async def test_one_agent_speaks_at_a_time(polos: Polos, model: ModelServer) -> None:
    other = Agent(id="handoff-other", provider="openai", model="gpt-4o")
    both = Agent(id="handoff-both", provider="openai", model="gpt-4o", handoffs=[billing, other])
    model.calls(("transfer_to_handoff-billing", {}), ("transfer_to_handoff-other", {}))
    model.says("done")
    result = await both.run(polos, "Go.")
    first, second = result.tool_results
    assert (first.status, second.status, result.agent_id) == ("completed", "failed", "handoff-billing")
    assert "hand over to one agent only" in str(second.error)
    assert "hand over to one agent only" in json.dumps(model.requests[-1].body)


async def test_who_speaks_is_the_same_after_a_replay(polos: Polos, model: ModelServer) -> None:
    @tool(id="handoff_waits")
    async def waits(ctx: WorkflowContext) -> str:
        return str((await ctx.step.suspend("ok", data={}))["data"]["said"])

    second = Agent(
        id="handoff-second", provider="openai", model="gpt-4o-mini", system_prompt="Two.", tools=[waits]
    )
    first = Agent(id="handoff-first", provider="openai", model="gpt-4o", handoffs=[second])
    model.calls(("transfer_to_handoff-second", {}))
    model.calls(("handoff_waits", {}))
    model.says("end")
    handle = await first.invoke(polos, {"input": "Go."})
    async for event in polos.follow(handle.id):
        if event.event_type == "suspend_ok":
            break
    await polos.stop()
    await polos.start()
    await polos.resume("handoff-first", handle.id, "ok", {"said": "yes"})
    record = await polos.wait(handle.id)
    assert record["result"]["agent_id"] == "handoff-second"
    assert [request.body["model"] for request in model.requests] == ["gpt-4o", "gpt-4o-mini", "gpt-4o-mini"]
    assert model.requests[-1].body["instructions"] == "Two."


async def test_an_agent_nobody_defined_is_not_handed_over_to(polos: Polos, model: ModelServer) -> None:
    lonely = Agent(id="handoff-lonely", provider="openai", model="gpt-4o", handoffs=["handoff-nobody"])
    model.calls(("transfer_to_handoff-nobody", {}))
    model.says("I do it myself.")
    result = await lonely.run(polos, "Go.")
    assert (result.result, result.agent_id) == ("I do it myself.", "handoff-lonely")
    assert "'handoff-nobody' is not defined in this worker" in str(result.tool_results[0].error)
