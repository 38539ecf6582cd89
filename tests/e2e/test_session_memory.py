"""What an agent remembers of a session: as the provider sees it, and as the journal holds it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backends import on_both
from models.servers import Answer, ModelServer, Recorder, chat_answer
from weather import City, agent, call_of

from polos import Agent, Polos, WorkflowContext, workflow

pytestmark = pytest.mark.timeout(60)


@on_both
async def test_the_next_run_of_a_session_begins_with_what_was_said(polos: Polos, model: ModelServer) -> None:
    model.calls(("e2e_weather", {"city": "Paris"}))
    model.says("Mild in Paris.")
    model.says("You asked of Paris.")
    model.says("I know nothing of it.")
    first = await agent.invoke(polos, {"input": "How is Paris?"}, session_id="wire-1")
    await polos.wait(first.id)
    await agent.run(polos, "What did I ask?", session_id="wire-1")
    await agent.run(polos, "What did I ask?", session_id="wire-2")

    second, other = (request.body["input"] for request in model.requests[-2:])
    assert [item.get("role") or item["type"] for item in second] == [
        "user",
        "function_call",
        "function_call_output",
        "assistant",
        "user",
    ]
    assert "How is Paris?" in str(second[0])
    assert second[1]["call_id"] == second[2]["call_id"]
    assert "Mild in Paris." in str(second[3])
    assert len(other) == 1
