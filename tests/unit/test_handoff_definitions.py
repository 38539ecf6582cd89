"""Who may take over a conversation, and by which tool."""

from __future__ import annotations

from typing import Any

import pytest

from polos import Agent, Handoff, WorkflowContext, tool


@tool(id="transfer_to_taken")
async def taken(ctx: WorkflowContext) -> None:
    """A tool whose name a handoff would have too."""


def agent(name: str, **options: Any) -> Agent:
    return Agent(id=name, provider="openai", model="m", **options)


def test_the_model_sees_a_tool_for_each_agent() -> None:
    billing = agent("billing agent", description="Knows invoices.")
    triage = agent(
        "triage", handoffs=[billing, Handoff("later-defined", name="ask_later", description="Later.")]
    )
    first, second = triage.config().tools
    assert first["name"] == "transfer_to_billing_agent"
    assert "Knows invoices." in first["description"]
    assert (second["name"], second["description"].endswith("Later.")) == ("ask_later", True)
    assert [handoff.find_agent() for handoff in triage.handoffs] == [billing, None]
    later = agent("later-defined")
    assert triage.handoffs[1].find_agent() is later
    assert triage.find_handoff("ask_later") is triage.handoffs[1]
    assert triage.tool_names() == ["ask_later", "transfer_to_billing_agent"]


def test_speakers_are_found_through_others_and_in_circles() -> None:
    third = agent("third", handoffs=["first"])
    second = agent("second", handoffs=[third])
    first = agent("first", handoffs=[second])
    assert first.find_speaker(None) is first
    assert first.find_speaker("third") is third
    assert third.find_speaker("second") is second
    assert first.find_speaker("unknown") is None


@pytest.mark.parametrize("wrong", [3, taken, {"agent": "x"}])
def test_only_agents_take_over(wrong: Any) -> None:
    with pytest.raises(TypeError, match="nothing to hand over to"):
        agent("wrong", handoffs=[wrong])


def test_names_are_unique() -> None:
    with pytest.raises(ValueError, match="two tools named 'transfer_to_taken'"):
        agent("clash", tools=[taken], handoffs=["taken"])
    with pytest.raises(ValueError, match="two tools named"):
        agent("twice", handoffs=["same", "same"])
