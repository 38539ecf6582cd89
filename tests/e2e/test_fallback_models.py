"""Agents whose provider fails them: other models, other providers, one conversation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from backends import on_both
from llmock.scenarios import Fail, Match, Reply, ToolCall
from models.servers import ModelServer
from weather import City

from polos import Agent, FallbackModel, Polos, WorkflowContext, tool
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)
_between_turns: list[Callable[[], None]] = []


@tool(id="e2e_next", description="What happens between two turns")
async def happens(ctx: WorkflowContext, input: City) -> str:
    _between_turns.pop(0)()
    return f"{input.city} is mild"


agent = Agent(
    id="e2e-fallback",
    provider="openai",
    model="gpt-4o",
    system_prompt="You are helpful.",
    tools=[happens, {"type": "web_search"}],
    fallback_models=[
        "anthropic/claude-sonnet-4-5",
        FallbackModel(provider="gemini", model="gemini-2.5-pro", max_output_tokens=77),
    ],
    model_retries=1,
)


def _down(provider: str, status: int, times: int | None) -> Fail:
    return Fail(status, times=times, match=Match(provider=provider))


def _calls(city: str, provider: str) -> Reply:
    call = ToolCall("e2e_next", {"city": city})
    return Reply(text=f"I look {city} up.", tool_calls=(call,), match=Match(provider=provider))


@on_both
async def test_a_conversation_goes_on_from_provider_to_provider(polos: Polos, model: ModelServer) -> None:
    """OpenAI calls a tool, Anthropic another, Gemini answers: each understands what the others said."""
    model.script(_calls("Paris", "openai"))
    _between_turns[:] = [
        lambda: model.script(_down("openai", 503, 2), _calls("Rome", "anthropic")),
        lambda: model.script(
            _down("openai", 401, 1),
            _down("anthropic", 529, 2),
            Reply("Mild.", match=Match(provider="gemini")),
        ),
    ]
    handle = await agent.invoke(polos, {"input": "Compare.", "provider_kwargs": {"seed": 7}})
    record = await polos.wait(handle.id)

    assert record["status"] == "completed", record["error"]
    assert record["result"]["result"] == "Mild."
    assert [(call.provider, call.status) for call in model.requests] == [
        ("openai", 200),
        *[("openai", 503)] * 2,
        ("anthropic", 200),
        ("openai", 401),
        *[("anthropic", 529)] * 2,
        ("gemini", 200),
    ]
    told = str(model.requests[-1].body)
    for word in ("Compare.", "I look Paris up.", "Paris is mild", "I look Rome up.", "Rome is mild"):
        assert word in told
    assert 77 in model.requests[-1].body["generationConfig"].values()
    assert [("seed" in call.body) for call in model.requests if call.provider != "gemini"] == [
        call.provider == "openai" for call in model.requests if call.provider != "gemini"
    ], "options of the run are for the agent's own model"
    assert "web_search" not in str(model.requests[3].body["tools"])
    turns = await _turns(polos, handle.id)
    assert [turn["output"]["provider"] for turn in turns] == ["openai", "anthropic", "gemini"]
    assert [failure["model"] for failure in turns[2]["failures"]] == [
        "openai/gpt-4o",
        *["anthropic/claude-sonnet-4-5"] * 2,
    ]


async def test_who_answered_is_told_in_the_event_of_the_turn(polos: Polos, model: ModelServer) -> None:
    model.script(_down("openai", 400, 1), Reply("hello", match=Match(provider="anthropic")))
    stream = await agent.stream(polos, "hi")
    ends = [event.data async for event in stream.events if event.event_type == "step_finish"]
    ends = [end for end in ends if end["step_key"].startswith("llm_")]
    assert [(end["data"]["result"]["provider"], end["data"]["result"]["content"]) for end in ends] == [
        ("anthropic", "hello")
    ]


async def test_when_all_are_down_each_is_named_with_its_last_error(polos: Polos, model: ModelServer) -> None:
    model.script(_down("openai", 500, None), _down("anthropic", 404, None), _down("gemini", 503, None))
    with pytest.raises(RunFailedError) as failed:
        await agent.run(polos, "hi")
    text = str(failed.value)
    assert "None of 3 models answered" in text
    for words in ("openai model 'gpt-4o': HTTP 500", "anthropic model", "gemini model", "after 2 attempts"):
        assert words in text
    assert [call.provider for call in model.requests] == ["openai"] * 2 + ["anthropic"] + ["gemini"] * 2


@on_both
async def test_a_run_that_a_person_retries_begins_with_the_agents_own_model(
    polos: Polos, model: ModelServer
) -> None:
    model.script(_down("openai", 401, 1), _down("anthropic", 401, 1), _down("gemini", 401, 1))
    model.says("hello again")
    handle = await agent.invoke(polos, {"input": "hi"})
    assert (await polos.wait(handle.id))["status"] == "failed"
    await polos.retry(handle.id)
    assert (await polos.wait(handle.id))["result"]["result"] == "hello again"
    assert [call.provider for call in model.requests] == ["openai", "anthropic", "gemini", "openai"]


async def _turns(polos: Polos, run_id: str) -> list[dict[str, Any]]:
    """Return the rows of the run's turns, their JSON read."""
    backend = await polos._transport.backend()
    rows = await asyncio.to_thread(backend.read_steps, run_id)
    return [
        {**row, "output": json.loads(row["output"]), "failures": json.loads(row["failures"] or "[]")}
        for row in rows
        if row["kind"] == "turn"
    ]
