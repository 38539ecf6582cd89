"""Fleets for some of the work: by the route of a definition, by `task_routes`, by deployment."""

from __future__ import annotations

import pytest
from fleet_program import GATES
from models.servers import ModelServer
from scripts import wait_until
from worker_fleet import Fleet

pytestmark = pytest.mark.timeout(120)

ROUTES = """
task_routes = {"temperature": {"queue": "thermometers"}, "*.turn": "models"}
"""


def test_a_route_of_a_definition_takes_its_runs_to_the_workers_that_serve_it(fleet: Fleet) -> None:
    """Even when a worker of another route is asked first."""
    general = fleet.worker("-Q", "polos")
    gpu = fleet.worker("-Q", "gpu")
    pids = fleet.run("boss")
    assert pids == [general.process.pid, gpu.process.pid]


def test_a_run_of_a_route_nobody_serves_waits_and_is_served_once_somebody_does(fleet: Fleet) -> None:
    fleet.worker("-Q", "polos")
    [run] = fleet.start(("gpu-job", None))
    assert fleet.query("SELECT status, route FROM run WHERE id = :run", run=run) == [("queued", "gpu")]
    gpu = fleet.worker("-Q", "gpu")
    assert fleet.results([run]) == [gpu.process.pid]


def test_a_worker_without_q_serves_the_routes_of_its_definitions(fleet: Fleet) -> None:
    worker = fleet.worker()
    assert fleet.run("gpu-job") == worker.process.pid
    [(routes,)] = fleet.query("SELECT routes FROM worker")
    assert routes == "gpu,polos"


def test_task_routes_match_readable_names(fleet: Fleet, model_of_fleets: ModelServer) -> None:
    """A tool by its id, the turns of every agent by a pattern; the agent itself stays where it was."""
    (fleet.folder.path / "celeryconfig.py").write_text(ROUTES)
    asked = fleet.worker("-Q", "models")
    thermometer = fleet.worker("-Q", "thermometers")
    general = fleet.worker("-Q", "polos")
    model_of_fleets.calls(("temperature", {"city": "Oslo"}))
    model_of_fleets.says("4 degrees.")

    assert fleet.run("clerk", {"input": "How warm is it?"})["result"] == "4 degrees."

    shown = [("Task clerk.turn[", asked), ("Task temperature[", thermometer), ("Task clerk[", general)]
    for label, worker in shown:
        worker.wait_for(label)
        others = [script for script in fleet.folder.scripts if script is not worker]
        assert not any(label in script.text for script in others)


def test_a_doorbell_from_a_client_that_knows_no_routes_is_forwarded(
    fleet: Fleet, model_of_fleets: ModelServer
) -> None:
    """Only the workers have the celeryconfig.py: the first to be asked hands on what it does not serve."""
    config = fleet.folder.path / "celeryconfig.py"
    config.write_text('task_routes = {"leaf": "leaves"}\n')
    fleet.worker("-Q", "polos")
    leaves = fleet.worker("-Q", "leaves")
    config.unlink()
    [run] = fleet.start(("leaf", {"n": 1}))
    assert fleet.results([run]) == [2]
    assert "Task leaf[" in leaves.text
    assert fleet.query("SELECT rings FROM run WHERE id = :run", run=run) == [(0,)]


def test_versions_of_the_code_live_side_by_side(fleet: Fleet) -> None:
    """New runs go to the newest; those of the old version stay with it, and its children too."""
    old = fleet.worker("-c", "1", POLOS_DEPLOYMENT_ID="v1")
    stairs, *trees = fleet.start(("stairs", None), *[("root", {"n": number}) for number in range(3)])
    wait_until(lambda: fleet.query("SELECT 1 FROM step WHERE run_id = :run", run=stairs))
    new = fleet.worker("-c", "1", POLOS_DEPLOYMENT_ID="v2")
    [boss] = fleet.start(("boss", None))
    for number in GATES:
        (fleet.folder.path / f"gate {number}").touch()

    assert fleet.results([boss]) == [[new.process.pid, new.process.pid]]
    fleet.results([stairs, *trees])
    assert {row[0] for row in fleet.query("SELECT deployment FROM run WHERE name = 'leaf'")} == {"v1"}
    assert "Task leaf[" not in new.text
    assert "forwarded" not in old.text + new.text


@pytest.mark.parametrize("route", ["gpu.next", "gpu@v2", "two words", ""])
def test_a_route_that_cannot_name_queues_is_refused_at_definition(route: str) -> None:
    from polos import workflow

    with pytest.raises(ValueError, match="a route is a word"):
        workflow(id="wrong-route", route=route)(lambda ctx: None)


def test_task_routes_with_an_unusable_queue_end_a_worker_at_its_start(fleet: Fleet) -> None:
    (fleet.folder.path / "celeryconfig.py").write_text('task_routes = {"leaf": {"queue": "gpu.next"}}\n')
    with pytest.raises(AssertionError, match=r"task_routes, for 'leaf', names the route 'gpu\.next'"):
        fleet.worker()


def test_a_clock_that_is_ten_minutes_wrong_changes_nothing(fleet: Fleet) -> None:
    """Only the database's clock tells who lives and what is due."""
    (fleet.folder.path / "sitecustomize.py").write_text(
        "import os, time\nright = time.time\noff = float(os.environ.get('CLOCK_OFF', 0))\n"
        "time.time = lambda: right() + off\n"
    )
    path = f"{fleet.folder.path}:{fleet.folder.environment['PYTHONPATH']}"
    for off in ("-600", "600"):
        fleet.worker("-c", "1", PYTHONPATH=path, CLOCK_OFF=off)
    runs = fleet.start(*[("root", {"n": number}) for number in range(10)])
    assert fleet.results(runs) == [2 * (2 * number + 1) for number in range(10)]
    assert not any("is dead" in script.text for script in fleet.folder.scripts)
    [(spread,)] = fleet.query("SELECT MAX(finished_at) - MIN(created_at) FROM run")
    assert 0 < spread < 300
