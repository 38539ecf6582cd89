"""Agents and workflows that other agents call as tools."""

from __future__ import annotations

from typing import Any

import pytest
from backends import on_both
from models.servers import ModelServer
from pydantic import BaseModel

from polos import Agent, HookContext, HookResult, Polos, Workflow, WorkflowContext, tool, workflow

pytestmark = pytest.mark.timeout(120)


class Order(BaseModel):
    """What the lookup needs."""

    number: int


class Verdict(BaseModel):
    ok: bool
    reason: str


def agent(id: str, **options: Any) -> Agent:
    return Agent(id=id, provider="openai", model="gpt-4o", **options)


@workflow(id="e2e-lookup", description="Looks an order up")
async def lookup(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
    if order.number == 13:
        raise LookupError("no such order")
    return {"order": order.number, "parent": ctx.parent_execution_id, "session": ctx.session_id}


billing = agent("e2e-billing", description="Knows about bills")
judge = agent("e2e-judge", output_schema=Verdict)


@on_both
async def test_an_agent_is_a_tool_whose_run_is_a_child(polos: Polos, model: ModelServer) -> None:
    front = agent("e2e-front", tools=[billing.as_tool()])
    model.calls(("e2e-billing", {"input": "What does Ada owe?"}))
    model.says("Five euros.")
    model.says("She owes five euros.")
    handle = await front.invoke(polos, {"input": "Ada?"}, session_id="front")
    record = await polos.wait(handle.id, timeout_seconds=30)
    [found] = record["result"]["tool_results"]
    assert (found["tool_name"], found["result"]) == ("e2e-billing", "Five euros.")
    asked = model.requests[1].body["input"][-1]["content"]
    assert "What does Ada owe?" in str(asked)

    kinds = []
    async for event in polos.follow(handle.id):
        if event.event_type.endswith("_start") and event.event_type != "step_start":
            kinds.append((event.event_type, event.data["_metadata"]["workflow_id"]))
    assert kinds == [
        ("agent_start", "e2e-front"),
        ("tool_start", "e2e-billing.tool"),
        ("agent_start", "e2e-billing"),
    ]


async def test_structured_output_comes_back_as_data(polos: Polos, model: ModelServer) -> None:
    front = agent("e2e-asks-judge", tools=[judge.as_tool(id="judge_it", input_schema=Order)])
    [offered] = front.config().tools or []
    assert (offered["name"], list(offered["parameters"]["properties"])) == ("judge_it", ["number"])
    model.calls(("judge_it", {"number": 4}))
    model.says('{"ok": true, "reason": "fine"}')
    model.says("Judged.")
    result = await front.run(polos, "Judge.")
    assert Verdict.model_validate(result.tool_results[0].result) == Verdict(ok=True, reason="fine")
    assert '{"number":4}' in str(model.requests[1].body["input"])


async def test_the_failure_of_the_child_is_the_tools(polos: Polos, model: ModelServer) -> None:
    def closed(ctx: WorkflowContext, hook: HookContext) -> HookResult:
        return HookResult.fail("The office is closed")

    shut = agent("e2e-shut", on_start=closed)
    front = agent("e2e-unlucky", tools=[shut.as_tool()])
    model.calls(("e2e-shut", {"input": "x"}))
    model.says("It is away.")
    result = await front.run(polos, "Go.")
    [found] = result.tool_results
    assert (found.status, found.error) == ("failed", "The office is closed")
    assert result.result == "It is away."


@on_both
async def test_a_workflow_may_be_given_as_it_is(polos: Polos, model: ModelServer) -> None:
    front = agent("e2e-looks", tools=[lookup])
    [offered] = front.config().tools or []
    assert (offered["name"], offered["description"]) == ("e2e-lookup", "Looks an order up")
    assert list(offered["parameters"]["properties"]) == ["number"]
    model.calls(("e2e-lookup", {"number": 4}), ("e2e-lookup", {"number": 13}), ("e2e-lookup", {"no": 1}))
    model.says("Looked.")
    result = await front.run(polos, "Look.", session_id="looking")
    fine, failed, unfit = result.tool_results
    assert (fine.result["order"], fine.result["session"]) == (4, "looking")
    assert (failed.status, failed.error) == ("failed", "no such order")
    assert "number: Field required" in str(unfit.error)


async def test_workflows_without_a_model_take_any_object(polos: Polos, model: ModelServer) -> None:
    async def plain(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
        return payload

    async def none(ctx: WorkflowContext) -> str:
        return "nothing"

    given = [Workflow("e2e plain", plain), Workflow("e2e-none", none)]
    front = agent("e2e-plain-front", tools=given)
    model.calls(("e2e_plain", {"a": [1]}), ("e2e-none", {}))
    model.says("Done.")
    result = await front.run(polos, "Go.")
    assert [found.result for found in result.tool_results] == [{"a": [1]}, "nothing"]


async def test_an_agent_given_as_it_is_may_ask_for_approval_too(polos: Polos, model: ModelServer) -> None:
    front = agent("e2e-careful-front", tools=[billing.as_tool(approval="always")])
    assert agent("e2e-bare", tools=[billing]).find_tool("e2e-billing") is not None
    model.calls(("e2e-billing", {"input": "Send a bill."}))
    model.says("No bill.")
    handle = await front.invoke(polos, {"input": "Bill Ada."})
    async for event in polos.follow(handle.id):
        if event.event_type.startswith("suspend_approve_e2e-billing_"):
            key = event.event_type.removeprefix("suspend_")
            await polos.resume(front.id, handle.id, key, {"approved": False, "feedback": "Later."})
    record = await polos.wait(handle.id, timeout_seconds=30)
    [found] = record["result"]["tool_results"]
    assert found["error"] == "Tool 'e2e-billing' was rejected by the user. Feedback: Later."
    assert len(model.requests) == 2  # the agent was never asked


def test_what_cannot_be_a_tool_is_refused() -> None:
    @tool(id="e2e_one")
    async def one(ctx: WorkflowContext) -> str:
        return ""

    with pytest.raises(ValueError, match=r"several tools named \['e2e_one'\]"):
        agent("e2e-twice", tools=[one, billing.as_tool(id="e2e_one")])
    with pytest.raises(ValueError, match=r"several tools named \['e2e-billing'\]"):
        agent("e2e-twice", tools=[billing, billing.as_tool()])
    with pytest.raises(TypeError, match="input_schema must be a Pydantic class"):
        billing.as_tool(input_schema=dict)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="approval='maybe' of tool 'e2e-billing"):
        billing.as_tool(approval="maybe")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is not a tool"):
        agent("e2e-function", tools=[lambda ctx: 1])  # type: ignore[list-item]
