"""Every tick starts one run, whatever number of sweepers there are, and however late they come."""

from __future__ import annotations

import json

import pytest
from clockwork import Clockwork, until

from polos.journal.creating import create_run
from polos.journal.queues import Limits, declare_queue
from polos.journal.runs import NewRun
from polos.journal.schedules import READ_DUE_SCHEDULES, due_schedule, fire_schedule
from polos.schedules import SchedulePayload
from polos.worker.duties.schedules import FireSchedules, _move, _new_run, _Served

pytestmark = pytest.mark.timeout(120)


def test_a_tick_starts_a_run_with_what_it_must_know(clockwork: Clockwork) -> None:
    schedule = clockwork.schedule(key="ada")
    [_, tick] = clockwork.last_ticks(schedule, 2)
    clockwork.move(schedule, tick)
    clockwork.sweep()

    [run] = clockwork.runs(schedule)
    assert (run["name"], run["queue"], run["concurrency_key"]) == ("report", "report", "ada")
    assert run["session_id"]
    assert run["root_id"] == run["id"]
    payload = SchedulePayload.model_validate(json.loads(run["input"]))
    assert payload.timestamp.timestamp() == tick
    assert payload.upcoming.timestamp() == tick + 60
    assert payload.last_timestamp is None
    assert (payload.timezone, payload.key, payload.schedule_id) == ("UTC", "ada", schedule)
    assert [bell.run_id for bell in clockwork.bells.rung] == [run["id"]]


def test_the_next_run_knows_when_the_last_one_was(clockwork: Clockwork) -> None:
    schedule = clockwork.schedule()
    [_, second] = clockwork.last_ticks(schedule, 2)
    clockwork.move(schedule, second)
    clockwork.sweep()
    [run] = clockwork.runs(schedule)
    clockwork.end(run)
    clockwork.move(schedule, second)  # as if a minute had passed
    clockwork.sweep()
    row = clockwork.timetable.row(schedule)
    assert row["last_at"] == second
    assert row["last_run_id"] == run["id"]


def test_a_tick_to_come_starts_nothing(clockwork: Clockwork) -> None:
    schedule = clockwork.schedule()
    clockwork.sweep()
    assert clockwork.runs(schedule) == []


def test_the_same_tick_never_starts_a_second_run(clockwork: Clockwork) -> None:
    """Even if a database that was restored says that it is still to come."""
    schedule = clockwork.schedule()
    [tick] = clockwork.last_ticks(schedule, 1)
    clockwork.move(schedule, tick)
    clockwork.sweep()
    clockwork.end(clockwork.runs(schedule)[0])
    clockwork.move(schedule, tick)
    clockwork.sweep()
    assert len(clockwork.runs(schedule)) == 1


def test_no_run_starts_while_one_is_under_way(clockwork: Clockwork) -> None:
    schedule = clockwork.schedule()
    [first, second] = clockwork.last_ticks(schedule, 2)
    clockwork.move(schedule, first)
    clockwork.sweep()  # which makes up for both
    clockwork.move(schedule, second + 0.0)
    clockwork.sweep()
    assert len(clockwork.runs(schedule)) == 1, "queued counts too"


def test_a_tick_that_had_to_wait_fires_when_the_run_has_ended(clockwork: Clockwork) -> None:
    schedule = clockwork.schedule(catch_up="all")
    ticks = clockwork.last_ticks(schedule, 2)
    clockwork.move(schedule, ticks[0])
    clockwork.sweep()
    clockwork.sweep()
    assert clockwork.ticks(schedule) == ticks[:1]
    clockwork.end(clockwork.runs(schedule)[0])
    clockwork.sweep()
    assert clockwork.ticks(schedule) == ticks


def test_runs_of_another_key_do_not_hold_a_schedule_up(clockwork: Clockwork) -> None:
    ada, bob = clockwork.schedule(key="ada"), clockwork.schedule(key="bob")
    for schedule in (ada, bob):
        clockwork.move(schedule, clockwork.last_ticks(schedule, 1)[0])
    clockwork.sweep()
    assert len(clockwork.runs(ada)) == len(clockwork.runs(bob)) == 1


# -- after a time in which nobody served


def _after_a_pause(
    clockwork: Clockwork, catch_up: str, *, cron: str = "* * * * *"
) -> tuple[str, list[float]]:
    """Return a schedule that missed three ticks."""
    schedule = clockwork.schedule(cron, catch_up=catch_up)
    missed = clockwork.last_ticks(schedule, 3)
    clockwork.move(schedule, missed[0])
    for _ in range(5):
        clockwork.sweep()
        for run in clockwork.runs(schedule):
            if run["finished_at"] is None:
                clockwork.end(run)
    return schedule, missed


def test_missed_ticks_become_one_run(clockwork: Clockwork) -> None:
    schedule, missed = _after_a_pause(clockwork, "one", cron="0 0 * * *")
    assert clockwork.ticks(schedule) == missed[-1:]
    assert clockwork.timetable.row(schedule)["next_at"] == missed[-1] + 86400


def test_each_missed_tick_becomes_a_run_if_all_are_wanted(clockwork: Clockwork) -> None:
    schedule, missed = _after_a_pause(clockwork, "all", cron="0 0 * * *")
    assert clockwork.ticks(schedule) == missed
    assert clockwork.timetable.row(schedule)["next_at"] == missed[-1] + 86400


def test_ticks_missed_by_more_than_a_minute_are_skipped_if_that_is_wanted(clockwork: Clockwork) -> None:
    schedule, missed = _after_a_pause(clockwork, "skip", cron=_far_from_now(clockwork))
    assert clockwork.ticks(schedule) == []
    assert clockwork.timetable.row(schedule)["next_at"] == missed[-1] + 3600
    assert clockwork.timetable.row(schedule)["last_at"] is None


def test_the_latest_of_missed_ticks_is_not_skipped_if_it_is_fresh(clockwork: Clockwork) -> None:
    schedule, missed = _after_a_pause(clockwork, "skip")
    assert clockwork.ticks(schedule)[0] >= missed[-1]


def _far_from_now(clockwork: Clockwork) -> str:
    """Return an hourly line whose ticks are about half an hour away."""
    return f"{int(clockwork.now() // 60 + 30) % 60} * * * *"


# -- who is late, or many


def test_three_sweepers_fire_each_tick_once(clockwork: Clockwork) -> None:
    """One of them is stopped meanwhile, and another takes its place."""
    schedules = [clockwork.schedule(catch_up="all", key=f"key{number}") for number in range(5)]
    missed = {schedule: clockwork.last_ticks(schedule, 6) for schedule in schedules}
    for schedule in schedules:
        clockwork.move(schedule, missed[schedule][0])
    sweepers = [clockwork.sweeper() for _ in range(3)]
    for sweeper in sweepers:
        sweeper.start()

    def all_are_done() -> bool:
        for schedule in schedules:
            for run in clockwork.runs(schedule):
                if run["finished_at"] is None:
                    clockwork.end(run)
                    sweepers[0].stop()
        return all(len(clockwork.runs(schedule)) >= len(missed[schedule]) for schedule in schedules)

    until(all_are_done)
    clockwork.sweep()
    for schedule in schedules:
        fired = clockwork.ticks(schedule)
        assert fired[: len(missed[schedule])] == missed[schedule]
        assert len(set(fired)) == len(fired)


def test_a_sweeper_that_was_late_fires_nothing(clockwork: Clockwork) -> None:
    """It read that a tick was due, and then others were quicker."""

    schedule = clockwork.schedule()
    clockwork.move(schedule, clockwork.last_ticks(schedule, 1)[0])
    [due] = [due_schedule(row) for row in clockwork.journal.read(READ_DUE_SCHEDULES, {})]
    clockwork.sweep()
    clockwork.end(clockwork.runs(schedule)[0])
    new = _new_run(due, due.next_at - 60, upcoming=due.next_at, deployment="default")
    late = fire_schedule(due, new, tick=due.next_at - 60, following=due.next_at, ring_again=5, window=9)
    assert clockwork.do(late) == []
    assert len(clockwork.runs(schedule)) == 1


@pytest.mark.parametrize("what", ["paused", "deleted", "changed", "triggered"])
def test_what_happened_meanwhile_counts(clockwork: Clockwork, what: str) -> None:
    """A sweeper that found a tick due does not start its run if the schedule is another since."""

    schedule = clockwork.schedule()
    clockwork.move(schedule, clockwork.last_ticks(schedule, 1)[0])
    [due] = [due_schedule(row) for row in clockwork.journal.read(READ_DUE_SCHEDULES, {})]
    move = _move(clockwork.sweeper()._desk, due, _Served(clockwork.sweeper()._desk))
    if what == "paused":
        clockwork.timetable.pause(schedule)
    elif what == "deleted":
        clockwork.timetable.delete(schedule)
    elif what == "triggered":
        clockwork.do(create_run(NewRun(**clockwork.timetable.run_now(schedule)), ring_again=5))
    else:
        clockwork.schedule("0 8 * * *")
    assert clockwork.do(move.unit) == []
    assert len(clockwork.runs(schedule)) == (what == "triggered")


def test_the_sweeper_wakes_for_the_next_tick(clockwork: Clockwork) -> None:
    schedule = clockwork.schedule()
    clockwork.move(schedule, clockwork.now() + 0.4)
    seconds = FireSchedules().do(clockwork.sweeper()._desk)
    assert seconds is not None
    assert 0 < seconds <= 0.4


def test_a_tick_of_a_queue_with_limits_waits_to_be_admitted(clockwork: Clockwork) -> None:
    clockwork.do(declare_queue("default", "default", "report", Limits(concurrency_limit=1)))
    schedule = clockwork.schedule()
    clockwork.move(schedule, clockwork.last_ticks(schedule, 1)[0])
    clockwork.sweep()
    [run] = clockwork.runs(schedule)
    assert (run["slot"], run["ring_at"]) == ("wanted", None)
    assert clockwork.bells.rung == []
