"""Agents whose answer is an instance of a class: from the wire to the caller."""

from __future__ import annotations

import json

import pytest
from backends import on_both
from models.servers import ModelServer
from pydantic import BaseModel, Field
from weather import City

from polos import Agent, MaxStepsConfig, Polos, WorkflowContext, executed_tool, max_steps, tool, workflow
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)


class Review(BaseModel):
    title: str
    rating: int = Field(ge=1, le=10)
    pros: list[str] = []


GOOD = {"title": "Alien", "rating": 9, "pros": ["dark"]}


@tool(id="structured_search", description="Search")
async def search(ctx: WorkflowContext, input: City) -> str:
    return "found"


def reviewer(name: str, **options: object) -> Agent:
    given: dict[str, object] = {"tools": [search], **options}
    return Agent(id=name, provider="openai", model="gpt-4o", output_schema=Review, **given)  # type: ignore[arg-type]


@on_both
async def test_the_answer_is_an_instance(polos: Polos, model: ModelServer) -> None:
    agent = reviewer("structured-plain")
    model.calls(("structured_search", {"city": "x"}))
    model.says(json.dumps(GOOD))
    result = await agent.run(polos, "Review it.")
    format = model.requests[0].body["text"]["format"]

    assert result.result == Review(**GOOD)
    assert result.result_schema == f"{Review.__module__}.Review"
    assert (format["type"], format["name"], format["strict"]) == ("json_schema", "Review", True)
    assert format["schema"]["required"] == ["title", "rating", "pros"]


async def test_a_wrong_answer_goes_back_once_with_what_is_wrong(polos: Polos, model: ModelServer) -> None:
    agent = reviewer("structured-mended")
    model.says('{"title": "Alien", "rating": 11}')
    model.says(f"```json\n{json.dumps(GOOD)}\n```")
    result = await agent.run(polos, "Review it.")
    assert (result.result, result.total_steps, result.stop_reason) == (Review(**GOOD), 2, "completed")
    last = model.requests[-1].body["input"]
    assert "rating: Input should be less than or equal to 10" in last[-1]["content"]
    assert '"rating": 11' in json.dumps(last[-2]).replace("\\", "")


async def test_an_answer_that_never_fits_fails_the_run_once(polos: Polos, model: ModelServer) -> None:
    agent = reviewer("structured-never", output_retries=2)
    model.says("I would rather not.", times=None)
    with pytest.raises(RunFailedError, match=r"do not fit its output_schema Review.*2 request\(s\)"):
        await agent.run(polos, "Review it.")
    assert len(model.requests) == 3


async def test_after_a_stop_the_model_is_asked_for_the_answer_with_the_results(
    polos: Polos, model: ModelServer
) -> None:
    agent = reviewer("structured-stopped", stop_conditions=[executed_tool(["structured_search"])])
    model.calls(("structured_search", {"city": "x"}))
    model.says(json.dumps(GOOD))
    result = await agent.run(polos, "Review it.")
    assert result.result == Review(**GOOD)
    assert "found" in json.dumps(model.requests[-1].body["input"])


async def test_at_the_cap_too(polos: Polos, model: ModelServer) -> None:
    agent = reviewer("structured-capped", stop_conditions=[max_steps(MaxStepsConfig(count=1))])
    model.calls(("structured_search", {"city": "x"}))
    model.says(json.dumps(GOOD))
    result = await agent.run(polos, "Review it.")
    assert (result.result, result.total_steps) == (Review(**GOOD), 2)


async def test_partial_json_is_streamed(polos: Polos, model: ModelServer) -> None:
    agent = reviewer("structured-streamed")
    model.says(json.dumps(GOOD))
    stream = await agent.stream(polos, "Review it.")
    chunks = [chunk async for chunk in stream.text_chunks]
    assert len(chunks) > 1
    assert json.loads("".join(chunks)) == GOOD
    assert (await stream.result()).result == Review(**GOOD)


@workflow(id="structured-in-workflow")
async def in_workflow(ctx: WorkflowContext) -> dict[str, object]:
    agent = reviewer("structured-child")
    first = await ctx.step.agent_invoke_and_wait("first", agent.with_input("Review it."))
    [second] = await ctx.step.batch_agent_invoke_and_wait("more", [agent.with_input("Again.")])
    return {
        "title": first.result.title,
        "is_instance": isinstance(first.result, Review),
        "second": second.result.result.rating,
    }


async def test_a_workflow_gets_instances_from_its_agents(polos: Polos, model: ModelServer) -> None:
    reviewer("structured-child")
    model.says(json.dumps(GOOD), times=2)
    result = await in_workflow.run(polos)
    assert result == {"title": "Alien", "is_instance": True, "second": 9}
