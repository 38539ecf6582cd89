"""`polos schedules` and `polos triggers`, on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from written import PLACE, Written, polos

from polos.journal.events import NewEvent, publish
from polos.journal.triggers import NewTrigger, declare_trigger
from polos.journal.workers import WorkerRow, register_worker

pytestmark = pytest.mark.timeout(120)
DETAILS = json.dumps({"schedulable": True, "route": "polos"})


@pytest.fixture
def offered(journal: Written) -> Written:
    """A journal with a worker that offers ``nightly``, which can be scheduled, and ``plain``."""
    row = WorkerRow("w" * 32, "w@host", 1, "default", "v1", "celery", "polos", 1)
    offers = [("workflow", "nightly"), ("workflow", "plain")]
    journal.do(register_worker(row, offers, details={offers[0]: DETAILS, offers[1]: "{}"}))
    return journal


def done(*arguments: str) -> str:
    answer = polos("schedules", *arguments)
    assert answer.exit_code == 0, answer.output
    return answer.output.strip()


def listed() -> list[dict[str, Any]]:
    found = json.loads(done("list", "--json"))
    assert isinstance(found, list)
    return found


def test_a_schedule_from_its_making_to_its_end(offered: Written) -> None:
    made = done("create", "nightly", "0 3 * * *", "--timezone", "Europe/Berlin", "--catch-up", "all")
    [shown] = listed()
    assert (shown["id"], shown["timezone"], shown["catch_up"]) == (made, "Europe/Berlin", "all")
    assert shown["deployment_id"] == "v1"
    assert "nightly" in done("list")

    assert "paused" in done("pause", made)
    assert listed()[0]["status"] == "paused"
    assert "goes on" in done("resume", made)
    assert listed()[0]["status"] == "active"
    run_id = done("trigger", made)
    assert [run["id"] for run in json.loads(polos("runs", "--json", "--name", "nightly").output)] == [run_id]
    assert "gone" in done("delete", made)
    assert listed() == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("create", "nightly", "0 0 31 2 *"), "cron"),
        (("create", "nightly", "0 3 * * *", "--timezone", "Mars"), "time zone"),
        (("create", "plain", "0 3 * * *"), "cannot be scheduled"),
        (("create", "unheard-of", "0 3 * * *"), "unknown"),
        (("pause", "unheard-of"), "no schedule"),
    ],
)
def test_what_cannot_be_done_is_said(offered: Written, arguments: tuple[str, ...], problem: str) -> None:
    answer = polos("schedules", *arguments)
    assert answer.exit_code == 2
    assert problem in answer.output


def test_triggers_are_listed_with_what_they_have_not_read(journal: Written) -> None:
    assert "No triggers" in polos("triggers").output
    trigger = NewTrigger(
        **PLACE,
        workflow="w",
        topic="orders",
        kind="workflow",
        queue="w",
        route="polos",
        batch_size=5,
        batch_timeout_seconds=30,
    )
    journal.do(declare_trigger(trigger, silence=10))
    journal.do(publish("default", "orders", [NewEvent(None, "{}"), NewEvent(None, "{}")]))
    [shown] = json.loads(polos("triggers", "--json").output)
    assert (shown["topic"], shown["workflow"], shown["pending"]) == ("orders", "w", 2)
    assert "orders" in polos("triggers").output
