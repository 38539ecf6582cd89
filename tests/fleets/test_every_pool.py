"""The same agents and workflows on every pool, one at a time, without waiting for a timer."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from fleet_program import STEPS, TRACE
from models.servers import ModelServer
from scripts import wait_until
from worker_fleet import Fleet

pytestmark = pytest.mark.timeout(180)
POOLS = ("asyncio", "prefork", "threads", "solo")
POOLS_AND_DATABASES = [(pool, database) for pool in POOLS for database in ("sqlite", "postgresql")]
TREES = 15


@pytest.mark.parametrize(("pool", "fleet"), POOLS_AND_DATABASES, indirect=["fleet"])
def test_agents_and_nested_workflows_go_one_at_a_time_without_waiting_for_a_timer(
    fleet: Fleet, model_of_fleets: ModelServer, pool: str
) -> None:
    """Parents must give way to their children: nothing was rung again by a sweeper."""
    fleet.worker("-c", "1", pool=pool)

    trees = fleet.start(*[("root", {"n": number}) for number in range(TREES)], ("impatient", {"n": 4}))
    assert fleet.results(trees) == [*(2 * (2 * number + 1) for number in range(TREES)), 10]

    model_of_fleets.calls(("temperature", {"city": "Oslo"}), ("where", {}))
    model_of_fleets.says("It is 4 degrees.")
    answer = fleet.run("clerk", {"input": "How warm is it in Oslo?"})
    assert answer["result"] == "It is 4 degrees."
    assert answer["tool_results"][0]["result"] == {"city": "Oslo", "celsius": 4}

    assert (
        fleet.query("SELECT name FROM run WHERE rings > 0 UNION SELECT name FROM step WHERE rings > 0") == []
    )


def _trace(fleet: Fleet) -> list[int]:
    trace = fleet.folder.path / TRACE
    return [int(line.split()[0]) for line in trace.read_text().splitlines()] if trace.exists() else []


def _await_step(fleet: Fleet, number: int) -> None:
    wait_until(lambda: number in _trace(fleet), seconds=60)


def _open_gate(fleet: Fleet, number: int) -> None:
    (fleet.folder.path / f"gate {number}").touch()


def _owner(fleet: Fleet, run: str) -> str | None:
    rows = fleet.query(
        "SELECT worker.hostname FROM run JOIN worker ON worker.id = run.owner WHERE run.id = :run", run=run
    )
    return rows[0][0] if rows else None


def _await_owner(fleet: Fleet, run: str, *others: str) -> str:
    """Return the node that owns a run, once it is another than these."""
    wait_until(lambda: _owner(fleet, run) not in {None, *others}, seconds=60)
    return str(_owner(fleet, run))


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])  # threads and solo hand over as prefork does
def test_a_worker_that_is_told_to_end_hands_its_run_over_at_once(fleet: Fleet, pool: str) -> None:
    """SIGTERM cuts no step; SIGQUIT may cut the one under way; neither is taken for a death."""
    started = fleet.workers(3, "-c", "2", pool=pool)
    workers = {f"w{number}@fleet": worker for number, worker in enumerate(started, start=1)}
    [run] = fleet.start(("stairs", None))
    _await_step(fleet, 2)
    first = str(_owner(fleet, run))

    workers[first].process.send_signal(signal.SIGTERM)
    workers[first].wait_for("Warm shutdown")
    _open_gate(fleet, 2)
    _await_step(fleet, 8)
    second = _await_owner(fleet, run, first)
    assert len(_trace(fleet)) == len(set(_trace(fleet)))

    workers[second].process.send_signal(signal.SIGQUIT)
    third = _await_owner(fleet, run, first, second)
    _open_gate(fleet, 8)

    assert fleet.results([run]) == [STEPS]
    assert third not in {first, second}
    workers[first].ends(code=0)
    workers[second].ends(code=None)

    again = len(_trace(fleet)) - STEPS
    assert again <= 1
    assert fleet.query("SELECT crashes FROM run WHERE id = :run", run=run) == [(0,)]
    assert not any("is dead" in script.text for script in fleet.folder.scripts)


def test_the_death_of_one_process_of_a_prefork_pool_is_noticed_by_the_others(fleet: Fleet) -> None:
    worker = fleet.worker("-c", "2", pool="prefork")
    [run] = fleet.start(("stairs", None))
    wait_until(lambda: len(_trace(fleet)) >= 2, seconds=60)
    [(pid, owner)] = fleet.query(
        "SELECT worker.pid, worker.id FROM run JOIN worker ON worker.id = run.owner WHERE run.id = :run",
        run=run,
    )
    assert pid != worker.process.pid

    os.kill(pid, signal.SIGKILL)
    _open_gate(fleet, 2)
    _open_gate(fleet, 8)

    assert fleet.results([run]) == [STEPS]
    assert len(_trace(fleet)) <= STEPS + 1
    assert fleet.query("SELECT 1 FROM worker WHERE id = :owner", owner=owner) == []
    wait_until(lambda: len(fleet.query("SELECT 1 FROM worker")) == 2, seconds=60)  # another took its place


def test_poison_is_put_away_and_others_go_on(fleet: Fleet) -> None:
    """What kills its process again and again, and results that cannot be stored (F20)."""
    fleet.worker("-c", "2", pool="prefork")
    runs = fleet.start(*[("poison", {"what": what}) for what in ("segfault", "huge", "object")])
    wait_until(lambda: not fleet.query("SELECT 1 FROM run WHERE finished_at IS NULL"), seconds=90)

    assert fleet.results(fleet.start(("root", {"n": 1}))) == [6]
    found = [fleet.query("SELECT status, crashes, error FROM run WHERE id = :run", run=run) for run in runs]
    (lost, crashes, why), (huge, _, too_large), (unfit, _, no_json) = (rows[0] for rows in found)
    assert [lost, huge, unfit] == ["failed"] * 3
    assert crashes == 3
    assert "worker_lost" in why
    assert "POLOS_MAX_VALUE_BYTES" in too_large
    assert "object" in no_json


def test_a_pool_that_cannot_serve_runs_is_refused(fleet: Fleet) -> None:
    celery = fleet.folder.command(
        *[sys.executable, "-m", "celery", "-A", "polos", "worker", "-P", "custom"],
        CELERY_CUSTOM_WORKER_POOL="celery.concurrency.base:BasePool",
        POLOS_IMPORTS="fleet_program",
    )
    assert "use one of asyncio, prefork, threads, solo" in celery.ends(code=1)
