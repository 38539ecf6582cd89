"""What is said of ticks and events that start runs is tested with planted misses."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from tick_scenario import judged

DUE = {"s1": [60.0, 120.0], "s2": [120.0]}
Runs = list[dict[str, Any]]


def _run(schedule: str | None, given: Any, status: str = "completed") -> dict[str, Any]:
    return {"id": "r", "schedule_id": schedule, "input": json.dumps(given), "status": status}


def _tick(schedule: str, moment: float) -> dict[str, Any]:
    return _run(schedule, {"timestamp": datetime.fromtimestamp(moment, UTC).isoformat()})


def _event(number: int) -> dict[str, Any]:
    return _run(None, {"data": {"number": number}})


def _runs() -> Runs:
    ticks = [_tick(schedule, moment) for schedule, moments in DUE.items() for moment in moments]
    return [*ticks, _event(0), _event(1), _tick("s1", 180.0)]  # the last came due meanwhile


def test_each_tick_and_event_that_started_one_run_is_well() -> None:
    assert list(judged(_runs(), DUE, 2)) == []


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lambda runs: runs.pop(0), "lacks 1 ticks"),
        (lambda runs: runs.append(_tick("s2", 120.0)), "started 2 runs"),
        (lambda runs: runs.append(_tick("s1", 180.0)), "started 2 runs"),
        (lambda runs: runs.append(_event(1)), "started 2 runs"),
        (lambda runs: runs.pop(3), "started nothing"),
        (lambda runs: runs[0].update(status="failed"), "did not complete"),
    ],
    ids=[
        "a tick lost",
        "a tick twice",
        "a new tick twice",
        "an event twice",
        "an event lost",
        "a run failed",
    ],
)
def test_a_planted_miss_is_found(plant: Callable[[Runs], object], said: str) -> None:
    runs = _runs()
    plant(runs)
    assert [miss for miss in judged(runs, DUE, 2) if said in miss]
