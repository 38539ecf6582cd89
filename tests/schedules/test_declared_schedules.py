"""What code declares is what the newest deployment of a workflow declares; what programs made stays."""

from __future__ import annotations

from typing import Any

import pytest
from clockwork import Clockwork

from polos.cron import CronSchedule
from polos.journal.workers import remove_worker
from polos.workflows import Workflow, register

pytestmark = pytest.mark.timeout(120)


def define(name: str, **options: Any) -> None:
    """Define a workflow anew, as the next version of a program does."""

    async def body(ctx: Any, payload: Any = None) -> None:
        return None

    register(Workflow(name, body, **options))


def entries(clockwork: Clockwork) -> dict[tuple[str, str], str]:
    return {(one.workflow_id, one.key): one.status for one in clockwork.timetable.entries(None)}


def test_a_worker_enters_what_its_code_declares(clockwork: Clockwork) -> None:
    define(
        "nightly", schedule={"cron": "0 3 * * *", "timezone": "Europe/Berlin", "key": "k", "catch_up": "all"}
    )
    clockwork.worker("v1", ["nightly"])
    [schedule] = clockwork.timetable.entries(None)
    assert (schedule.cron, schedule.timezone, schedule.key, schedule.catch_up) == (
        "0 3 * * *",
        "Europe/Berlin",
        "k",
        "all",
    )
    assert (schedule.status, schedule.declared_by) == ("active", "v1")
    assert schedule.next_run_at is not None


def test_workers_that_start_again_change_nothing(clockwork: Clockwork) -> None:
    """A tick that was missed meanwhile is still to be made up for."""
    define("nightly", schedule="0 3 * * *")
    clockwork.worker("v1", ["nightly"])
    [before] = clockwork.timetable.entries(None)
    clockwork.move(before.id, 1000.0)
    clockwork.worker("v1", ["nightly"])
    [after] = clockwork.timetable.entries(None)
    assert (after.id, after.created_at) == (before.id, before.created_at)
    assert after.next_run_at is not None
    assert after.next_run_at.timestamp() == 1000.0


def test_another_expression_counts_from_now_on(clockwork: Clockwork) -> None:
    define("nightly", schedule="0 3 * * *")
    clockwork.worker("v1", ["nightly"])
    [before] = clockwork.timetable.entries(None)
    clockwork.move(before.id, 1000.0)
    define("nightly", schedule="0 4 * * *")
    clockwork.worker("v1", ["nightly"])
    [after] = clockwork.timetable.entries(None)
    assert after.id == before.id
    assert after.next_run_at is not None
    assert after.next_run_at.hour == 4
    assert after.next_run_at.timestamp() > clockwork.now()


def test_what_is_no_longer_declared_rests(clockwork: Clockwork) -> None:
    define("nightly", schedule="0 3 * * *")
    clockwork.worker("v1", ["nightly"])
    define("nightly", schedule={"cron": "0 3 * * *", "key": "other"})
    clockwork.worker("v1", ["nightly"])
    assert entries(clockwork) == {("nightly", "global"): "inactive", ("nightly", "other"): "active"}
    define("nightly", schedule=True)
    clockwork.worker("v1", ["nightly"])
    assert set(entries(clockwork).values()) == {"inactive"}


def test_what_is_declared_again_goes_on(clockwork: Clockwork) -> None:
    define("nightly", schedule="0 3 * * *")
    clockwork.worker("v1", ["nightly"])
    define("nightly")
    clockwork.worker("v1", ["nightly"])
    define("nightly", schedule="0 3 * * *")
    clockwork.worker("v1", ["nightly"])
    [schedule] = clockwork.timetable.entries(None)
    assert schedule.status == "active"
    assert schedule.next_run_at is not None


def test_a_worker_of_other_workflows_leaves_a_schedule_alone(clockwork: Clockwork) -> None:
    define("nightly", schedule="0 3 * * *")
    define("other")
    clockwork.worker("v1", ["nightly"])
    clockwork.worker("v1", ["other"])
    assert entries(clockwork) == {("nightly", "global"): "active"}


def test_what_a_program_made_stays(clockwork: Clockwork) -> None:
    define("nightly", schedule=True)
    clockwork.worker("v1", ["nightly"])
    clockwork.timetable.create("nightly", CronSchedule("0 5 * * *", key="ada"))
    define("nightly")
    clockwork.worker("v2", ["nightly"])
    assert entries(clockwork) == {("nightly", "ada"): "active"}


def test_a_person_s_pause_outlives_workers_and_programs(clockwork: Clockwork) -> None:
    define("nightly", schedule="0 3 * * *")
    clockwork.worker("v1", ["nightly"])
    [schedule] = clockwork.timetable.entries(None)
    clockwork.timetable.pause(schedule.id)
    clockwork.worker("v1", ["nightly"])
    clockwork.timetable.create("nightly", CronSchedule("0 5 * * *"))
    [after] = clockwork.timetable.entries(None)
    assert (after.status, after.next_run_at) == ("paused", None)


# -- two deployments


def test_runs_go_to_the_newest_deployment(clockwork: Clockwork) -> None:
    define("nightly", schedule="0 3 * * *")
    clockwork.worker("v1", ["nightly"])
    clockwork.worker("v2", ["nightly"])
    clockwork.worker("v1", ["nightly"])  # an older one that starts later does not take it back
    [schedule] = clockwork.timetable.entries(None)
    clockwork.move(schedule.id, clockwork.last_ticks(schedule.id, 1)[0])
    clockwork.sweep()
    [run] = clockwork.runs(schedule.id)
    assert run["deployment"] == "v2"


def test_an_older_deployment_does_not_revive_what_the_newest_gave_up(clockwork: Clockwork) -> None:
    define("nightly", schedule="0 3 * * *")
    clockwork.worker("v1", ["nightly"])
    define("nightly")
    clockwork.worker("v2", ["nightly"])
    assert entries(clockwork) == {("nightly", "global"): "inactive"}


def test_code_that_was_rolled_back_has_its_schedules_again(clockwork: Clockwork) -> None:
    define("nightly", schedule="0 3 * * *")
    clockwork.worker("v1", ["nightly"])
    define("nightly", schedule="0 4 * * *")
    newer = clockwork.worker("v2", ["nightly"])
    define("nightly", schedule="0 3 * * *")
    clockwork.do(remove_worker(newer))
    clockwork.worker("v1", ["nightly"])
    [schedule] = clockwork.timetable.entries(None)
    assert (schedule.cron, schedule.deployment_id) == ("0 3 * * *", "v1")


def test_a_workflow_that_the_newest_deployment_dropped_rests_when_nobody_is_left(
    clockwork: Clockwork,
) -> None:
    define("nightly", schedule="0 3 * * *")
    define("other")
    older = clockwork.worker("v1", ["nightly", "other"])
    clockwork.worker("v2", ["other"])
    assert entries(clockwork) == {("nightly", "global"): "active"}, "the old one still serves it"
    clockwork.do(remove_worker(older))
    clockwork.worker("v2", ["other"])
    assert entries(clockwork) == {("nightly", "global"): "inactive"}
    clockwork.worker("v1", ["nightly", "other"])
    assert entries(clockwork) == {("nightly", "global"): "active"}


def test_the_run_of_a_program_s_schedule_goes_where_it_is_served(clockwork: Clockwork) -> None:
    define("nightly", schedule=True)
    clockwork.worker("v1", ["nightly"])
    newer = clockwork.worker("v2", ["nightly"])
    schedule = clockwork.timetable.create("nightly", CronSchedule("0 5 * * *"))
    assert clockwork.timetable.row(schedule)["deployment"] == "v2"
    clockwork.do(remove_worker(newer))
    clockwork.move(schedule, clockwork.last_ticks(schedule, 1)[0])
    clockwork.sweep()
    [run] = clockwork.runs(schedule)
    assert run["deployment"] == "v1"


# -- what cannot be scheduled


def test_a_workflow_must_be_made_for_it(clockwork: Clockwork) -> None:
    define("plain")
    clockwork.worker("v1", ["plain"])
    with pytest.raises(ValueError, match="cannot be scheduled"):
        clockwork.timetable.create("plain", CronSchedule("0 5 * * *"))


def test_ids_are_the_same_for_the_same_workflow_and_key(clockwork: Clockwork) -> None:
    first, second = clockwork.schedule("0 5 * * *"), clockwork.schedule("0 6 * * *")
    other = clockwork.schedule("0 5 * * *", key="ada")
    elsewhere = clockwork.timetable_of("other").create("report", CronSchedule("0 5 * * *"))
    assert first == second
    assert len({first, other, elsewhere}) == 3
    assert [one.cron for one in clockwork.timetable.entries("report")] == ["0 5 * * *", "0 6 * * *"]


def test_a_schedule_of_another_project_is_none(clockwork: Clockwork) -> None:
    schedule = clockwork.schedule()
    elsewhere = clockwork.timetable_of("other")
    assert elsewhere.entries(None) == []
    for work in (elsewhere.row, elsewhere.pause, elsewhere.resume, elsewhere.delete, elsewhere.run_now):
        with pytest.raises(ValueError, match="no schedule"):
            work(schedule)


def test_ticks_of_a_pause_are_not_made_up_for(clockwork: Clockwork) -> None:
    schedule = clockwork.schedule(catch_up="all")
    clockwork.move(schedule, clockwork.last_ticks(schedule, 3)[0])
    clockwork.timetable.pause(schedule)
    clockwork.sweep()
    clockwork.timetable.resume(schedule)
    clockwork.sweep()
    assert clockwork.runs(schedule) == []
    assert clockwork.timetable.row(schedule)["next_at"] > clockwork.now()
