"""`polos usage`, on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from written import Written, polos

pytestmark = pytest.mark.timeout(120)


def done(*arguments: str) -> str:
    answer = polos("usage", *arguments)
    assert answer.exit_code == 0, answer.output
    return answer.output


def report(*arguments: str) -> dict[str, Any]:
    found = json.loads(done("--json", *arguments))
    assert isinstance(found, dict)
    return found


@pytest.fixture
def two_agents(journal: Written) -> Written:
    for name, session, cost in (("helper", "s-1", 0.25), ("writer", "s-2", 1.5)):
        run = journal.claimed(journal.run(name, kind="agent", session_id=session))
        journal.answered_turn(run, tokens_in=11_000, tokens_out=7, cost=cost)
    return journal


def test_nothing_used_is_said(journal: Written) -> None:
    assert "No model calls" in done()
    assert report() == {
        "total": {
            "calls": 0,
            "unpriced_calls": 0,
            "input_tokens": 0,
            "output_tokens": 0,
            "total_tokens": 0,
            "cached_tokens": 0,
            "cost": None,
        },
        "rows": [],
    }


def test_usage_is_shown_by_agent_with_a_total(two_agents: Written) -> None:
    lines = [line.split() for line in done("--by", "agent").splitlines()]
    assert lines == [
        ["agent", "calls", "input", "cached", "output", "cost"],
        ["helper", "1", "11,000", "0", "7", "$0.25"],
        ["writer", "1", "11,000", "0", "7", "$1.50"],
        ["total", "2", "22,000", "0", "14", "$1.75"],
    ]


@pytest.mark.parametrize(
    ("by", "names"),
    [("model", ["openai/gpt-4o"]), ("session", ["s-1", "s-2"]), ("agent", ["helper", "writer"])],
)
def test_usage_is_grouped(two_agents: Written, by: str, names: list[str]) -> None:
    found = report("--by", by, "--since", "7d")
    assert [row["of"] for row in found["rows"]] == names
    assert found["total"]["cost"] == 1.75


def test_filters_narrow_it(two_agents: Written) -> None:
    assert report("--agent", "writer")["total"]["cost"] == 1.5
    assert report("--session", "s-1")["total"]["cost"] == 0.25
    assert report("--model", "openai/other")["total"]["calls"] == 0
    assert report("--project", "another")["total"]["calls"] == 0
    assert report("--since", "2100-01-01")["total"]["calls"] == 0


def test_calls_without_a_price_are_told(journal: Written) -> None:
    run = journal.claimed(journal.run("helper", kind="agent"))
    journal.answered_turn(run, tokens_in=11, tokens_out=7)
    assert "POLOS_MODEL_PRICES" in done()


@pytest.mark.parametrize("arguments", [("--by", "week"), ("--since", "yesterday")])
def test_what_cannot_be_asked_is_refused(journal: Written, arguments: tuple[str, str]) -> None:
    refused = polos("usage", *arguments)
    assert refused.exit_code == 2
    assert arguments[1] in refused.output
