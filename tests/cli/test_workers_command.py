from __future__ import annotations

import json
from typing import Any

import pytest
from written import Written, polos

from polos.journal.workers import start_draining


def listed() -> dict[str, dict[str, Any]]:
    answer = polos("workers", "--json")
    assert answer.exit_code == 0, answer.output
    return {worker["id"]: worker for worker in json.loads(answer.output)}


def test_worker_is_listed_with_what_it_offers(journal: Written) -> None:
    journal.worker("w1", ("agent", "helper"), ("tool", "look"), routes="gpu,polos")
    found = listed()["w1"]
    assert (found["hostname"], found["pid"], found["concurrency"]) == ("w1@here", 1234, 7)
    assert found["routes"] == ["gpu", "polos"]
    assert found["definitions"] == [{"kind": "agent", "name": "helper"}, {"kind": "tool", "name": "look"}]


def test_state_tells_who_drains(journal: Written) -> None:
    journal.worker("w1")
    journal.worker("w2")
    journal.do(start_draining("w2"))
    assert {name: worker["state"] for name, worker in listed().items()} == {"w1": "live", "w2": "draining"}


def test_worker_that_was_not_heard_of_for_the_silence_limit_is_silent(
    journal: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.worker("w1")
    journal.run()  # a moment later
    monkeypatch.setenv("POLOS_SILENCE_LIMIT_SECONDS", "0")
    assert listed()["w1"]["state"] == "silent"
    assert listed()["w1"]["beat_age_seconds"] > 0


def test_runs_that_wait_for_a_turn_are_counted_apart_from_those_that_execute(journal: Written) -> None:
    for worker in ("w1", "w2"):
        journal.worker(worker)
    journal.claimed(journal.run(), "w1")
    journal.turn(journal.claimed(journal.run(), "w1"), worker="w2")
    counts = {name: (one["executing"], one["waiting"], one["turns"]) for name, one in listed().items()}
    assert counts == {"w1": (1, 1, 0), "w2": (0, 0, 1)}


def test_table_names_the_node_and_what_it_offers(journal: Written) -> None:
    journal.worker("w1", ("agent", "helper"))
    [line] = [line for line in polos("workers").output.splitlines() if "w1@here" in line]
    assert "live" in line
    assert "default/default" in line
    assert "helper" in line


def test_command_without_workers_says_how_to_start_one(journal: Written) -> None:
    assert "polos worker" in polos("workers").output
