"""`polos queues`, on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from written import Written, polos

pytestmark = pytest.mark.timeout(120)


def done(*arguments: str) -> str:
    answer = polos("queues", *arguments)
    assert answer.exit_code == 0, answer.output
    return answer.output.strip()


def listed() -> list[dict[str, Any]]:
    found = json.loads(done("--json"))
    assert isinstance(found, list)
    return found


def test_limits_are_set_shown_and_lifted(journal: Written) -> None:
    assert "No queue" in done()
    done("set", "print er", "--limit", "2", "--rate", "6", "--seconds", "60", "--hold")
    [shown] = listed()
    assert {name: shown[name] for name in ("name", "concurrency_limit", "rate_limit", "rate_seconds")} == {
        "name": "print er",
        "concurrency_limit": 2,
        "rate_limit": 6,
        "rate_seconds": 60.0,
    }
    assert shown["hold_while_waiting"] is True
    assert "6 in 60 s" in done("list")
    done("set", "print er", "--no-limit", "--no-rate")
    assert [listed()[0][name] for name in ("concurrency_limit", "rate_limit")] == [None, None]
    assert listed()[0]["hold_while_waiting"] is True


def test_a_paused_queue_is_shown_with_what_waits(journal: Written) -> None:
    assert "polos queues resume q" in done("pause", "q")
    run_id = journal.run(queue="q", concurrency_key="ann")
    assert "ann" in done()
    assert "paused" in done()
    [shown] = listed()
    assert (shown["held"], shown["pending"]) == (0, 1)
    assert shown["keys"] == [{"concurrency_key": "ann", "held": 0, "pending": 1}]
    assert "waits for a slot" in polos("runs", "show", run_id).output
    done("resume", "q")
    assert "paused" not in done()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("set", "q"), "Nothing to change"),
        (("set", "q", "--limit", "0"), "concurrency_limit=0"),
        (("set", "q", "--rate", "-1"), "rate_limit=-1"),
        (("set", "q", "--rate", "1", "--seconds", "nan"), "rate_seconds=nan"),
        (("set", "q", "--limit", "1", "--no-limit"), "at once"),
        (("set", " ", "--limit", "1"), "queue name"),
    ],
)
def test_what_cannot_be_done_is_said(journal: Written, arguments: tuple[str, ...], problem: str) -> None:
    answer = polos("queues", *arguments)
    assert answer.exit_code == 2
    assert problem in answer.output
