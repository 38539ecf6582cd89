"""A wait ends once: whoever ends it, and whatever happens to its run at the same time."""

from __future__ import annotations

from typing import Any

import pytest
from hands import Together, result
from scenes import RING_AGAIN, Scene, claim, finishing, parking, recording
from sqlalchemy import select
from test_answers import answering, asking, place

from polos.journal.event_waits import (
    EVENT_WAITS,
    READ_MET,
    READ_MET_OF_STEP,
    Met,
    W,
    Wanted,
    expire_event_wait,
    hand_over,
    wait_for_event,
)
from polos.journal.events import NewEvent, publish, publish_in_tree
from polos.journal.runs import Claim
from polos.journal.statements import Statement, Unit
from polos.journal.suspends import resume_by_step
from polos.journal.waits import due_from, end_wait, set_timer, take_due

TOPIC = "orders"
OPEN = Statement(select(W.run_id).select_from(EVENT_WAITS).where(W.number.is_(None)))


def setting(run: Claim, seconds: float = 0.0, name: str = "nap") -> Unit:
    return set_timer(run.id, run.attempt, name, position=0, seconds=seconds)


def ending(run: Claim, name: str = "nap") -> Unit:
    return end_wait(run.id, name, root_id=run.root_id, ring_again=RING_AGAIN, output="{}")


def wanted(run: Claim, is_tree: bool, **options: Any) -> Wanted:
    topic = place(run)["topic"] if is_tree else TOPIC
    return Wanted(run.project, topic, run.root_id if is_tree else None, **options)


def registering(run: Claim, is_tree: bool = False, **options: Any) -> Unit:
    timeout = options.pop("timeout", None)
    question = wanted(run, is_tree, **options)
    return wait_for_event(run.id, run.attempt, "event", question, position=0, timeout_seconds=timeout)


def publishing(run: Claim, is_tree: bool = False, *kinds: str | None) -> Unit:
    events = [NewEvent(kind, "{}") for kind in kinds or (None,)]
    if is_tree:
        return publish_in_tree(run.project, place(run)["topic"], run.root_id, events)
    return publish(run.project, TOPIC, events)


def handing_over(scene: Scene) -> Unit:
    [row] = scene.first.read(READ_MET)
    return hand_over(Met(*row), "{}", ring_again=RING_AGAIN)


def expiring(run: Claim) -> Unit:
    return expire_event_wait(run.id, "event", root_id=run.root_id, error="late", ring_again=RING_AGAIN)


each_topic = pytest.mark.parametrize("is_tree", [False, True], ids=["of the program", "of its tree"])


# -- timers


def test_a_timer_that_two_clocks_end_ends_once(scene: Scene, together: Together) -> None:
    """The loop's and a sweeper's."""
    run = scene.running("a")
    scene.do(setting(run))
    first, second = scene.hand(), scene.hand()
    [won] = first.begin(ending(run))
    behind = together.commit_behind(second, ending(run))
    first.end()
    assert won
    assert result(behind) == []
    assert scene.run(run.id)["wakes"] == 1
    assert scene.steps(run.id)["nap"].status == "completed"


def test_what_somebody_else_records_for_a_run_ends_its_suspicion(scene: Scene) -> None:
    """Its worker died while it was executed; then it came to a wait, and beyond: that was no cause of it."""
    run = scene.running("a")
    scene.lose("a")
    run = scene.claimed(run.id, "b")
    scene.do(setting(run))
    assert scene.run(run.id)["crashes"] == 1
    assert scene.do(ending(run))
    assert scene.run(run.id)["crashes"] == 0


def test_a_run_is_not_parked_over_a_timer_that_ends(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    scene.do(setting(run))
    first, second = scene.hand(), scene.hand()
    first.begin(ending(run))
    parked = together.commit_behind(second, parking(run))
    first.end()
    assert result(parked) == []


def test_a_timer_that_ends_while_its_run_is_parked_queues_it(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    scene.do(setting(run))
    first, second = scene.hand(), scene.hand()
    first.begin(parking(run))
    ended = together.commit_behind(second, ending(run))
    first.end()
    assert result(ended)[0][0] == "queued"
    assert scene.do(claim(run.id, "b"))


def test_a_timer_is_set_once(scene: Scene) -> None:
    """A unit that is repeated because its answer was lost says when the timer it has set is due."""
    run = scene.running("a")
    [(_, due, _)] = scene.do(setting(run, 60.0))
    [(_, again, remaining)] = scene.do(setting(run, 60.0))
    assert again == due
    assert 50 < remaining <= 60


def test_a_fenced_run_sets_no_timer(scene: Scene) -> None:
    run = scene.running("a")
    scene.lose("a")
    assert scene.do(setting(run)) == []
    assert scene.steps(run.id) == {}


def test_sweepers_share_what_is_due(scene: Scene) -> None:
    runs = [scene.running("a") for _ in range(3)]
    for run in runs:
        scene.do(setting(run))
    taken = [due_from(row) for row in scene.do(take_due())]
    assert {wait.run_id for wait in taken} == {run.id for run in runs}
    assert scene.do(take_due()) == [], "another sweeper finds nothing"


def test_a_timer_of_an_ended_run_wakes_nobody(scene: Scene) -> None:
    run = scene.running("a")
    scene.do(setting(run))
    scene.do(recording(run, "a"))
    scene.lose("a")
    again = scene.claimed(run.id, "b")
    scene.do(finishing(again))
    assert scene.do(ending(run)) == []


# -- events


@each_topic
def test_an_event_that_is_published_while_a_wait_is_registered_is_not_lost(
    scene: Scene, together: Together, is_tree: bool
) -> None:
    """Whichever comes first: an event before the wait does not count, one after it does."""
    run = scene.running("a")
    first, second = scene.hand(), scene.hand()
    first.begin(registering(run, is_tree))
    published = together.commit_behind(second, publishing(run, is_tree))
    first.end()
    assert result(published)[0][2] == 1, "the wait met it"
    assert scene.do(handing_over(scene))


@each_topic
def test_a_wait_that_is_registered_while_an_event_is_published_waits_for_the_next(
    scene: Scene, together: Together, is_tree: bool
) -> None:
    run = scene.running("a")
    scene.do(publishing(run, is_tree))
    first, second = scene.hand(), scene.hand()
    first.begin(publishing(run, is_tree))
    registered = together.commit_behind(second, registering(run, is_tree))
    first.end()
    assert result(registered)[0][3] is None
    assert scene.first.read(READ_MET) == []
    scene.do(publishing(run, is_tree))
    [row] = scene.first.read(READ_MET)
    assert Met(*row).number == scene.do(publishing(run, is_tree))[0][0] - 1


@each_topic
def test_of_a_batch_the_earliest_that_fits_is_met(scene: Scene, is_tree: bool) -> None:
    run = scene.running("a")
    scene.do(registering(run, is_tree, type="paid"))
    [(last, *_)] = scene.do(publishing(run, is_tree, None, "paid", "paid", "other"))
    [row] = scene.first.read(READ_MET)
    assert Met(*row).number == last - 2


def test_an_event_handed_over_by_two_is_handed_over_once(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    scene.do(registering(run))
    scene.do(publishing(run))
    unit = handing_over(scene)
    first, second = scene.hand(), scene.hand()
    first.begin(unit)
    behind = together.commit_behind(second, unit)
    first.end()
    assert result(behind) == []
    assert scene.run(run.id)["wakes"] == 1
    assert scene.first.read(READ_MET_OF_STEP, run=run.id, name="event") == []


def test_a_wait_that_met_its_event_does_not_expire(scene: Scene) -> None:
    run = scene.running("a")
    scene.do(registering(run, timeout=0.001))
    scene.do(publishing(run))
    assert scene.do(expiring(run)) == []
    assert scene.do(handing_over(scene))
    assert scene.steps(run.id)["event"].status == "completed"


def test_an_event_and_the_end_of_its_time_leave_one_outcome(scene: Scene, together: Together) -> None:
    """Published in the moment of the end, it may come too late; the run ends its wait once."""
    run = scene.running("a")
    scene.do(registering(run, timeout=0.001))
    first, second = scene.hand(), scene.hand()
    first.begin(publishing(run))
    expired = together.start(lambda: second.commit(expiring(run)))
    if scene.database.is_sqlite:
        assert not expired.done()
    first.end()
    expired.result(20)
    for row in scene.first.read(READ_MET):
        scene.do(hand_over(Met(*row), "{}", ring_again=RING_AGAIN))
    assert scene.run(run.id)["wakes"] == 1
    assert scene.steps(run.id)["event"].has_outcome
    assert scene.first.read(READ_MET) == []
    assert scene.first.read(OPEN) == []


def test_a_registration_repeated_after_a_lost_answer_waits_once(scene: Scene) -> None:
    run = scene.running("a")
    unit = registering(run)
    scene.do(unit)
    scene.do(publishing(run))
    scene.do(handing_over(scene))
    scene.do(unit)
    assert scene.first.read(OPEN) == []


# -- answers


def test_a_question_takes_the_answer_that_came_before_it(scene: Scene, together: Together) -> None:
    """However close: the root's row decides which is first."""
    run = scene.running("a")
    first, second = scene.hand(), scene.hand()
    first.begin(answering(run))
    asked = together.commit_behind(second, asking(run))
    first.end()
    assert result(asked)[0][2] is not None
    assert scene.do(handing_over(scene))


def test_an_answer_behind_its_question_is_given_to_it(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    first, second = scene.hand(), scene.hand()
    first.begin(asking(run))
    answered = together.commit_behind(second, answering(run))
    first.end()
    assert result(answered)[0][1] == run.id
    assert scene.steps(run.id)["approve"].status == "completed"


def test_a_kept_answer_is_not_given_twice(scene: Scene) -> None:
    run = scene.running("a")
    scene.do(answering(run))
    scene.do(asking(run))
    assert scene.do(answering(run)) == [], "the one that was kept wins"
    assert scene.do(handing_over(scene))
    assert scene.run(run.id)["wakes"] == 1


def answering_by_step(clerk: Claim, worker: str, asker: Claim) -> Unit:
    return resume_by_step(
        recording(clerk, worker, "answer"),
        asker.id,
        "approve",
        place=place(asker),
        output='{"data":1}',
        event_type="resume_approve",
        event_data="{}",
        ring_again=RING_AGAIN,
    )


@pytest.mark.parametrize("is_itself", [False, True], ids=["another", "itself"])
def test_a_step_that_answers_does_so_once(scene: Scene, is_itself: bool) -> None:
    """A repeated unit, whose answer was lost, neither answers nor keeps anything again."""
    asker = scene.running("a")
    clerk, worker = (asker, "a") if is_itself else (scene.running("b"), "b")
    scene.do(asking(asker))
    asked, clerks = scene.run(asker.id)["seq"], scene.run(clerk.id)["seq"]
    unit = answering_by_step(clerk, worker, asker)
    [(seq, number)] = scene.do(unit)
    assert (seq, number) == (clerks + 1, scene.run(asker.id)["event_seq"])
    approved = scene.steps(asker.id)["approve"]
    assert (approved.output, approved.status) == ('{"data":1}', "completed")
    assert approved.seq == scene.run(asker.id)["seq"] == asked + 1 + is_itself
    before, steps = scene.run(asker.id), scene.steps(asker.id)
    scene.do(unit)
    counted = {"seq", "event_seq"} if is_itself else set()  # by whoever repeats a step, for nothing
    after = scene.run(asker.id)
    assert {name for name in after if after[name] != before[name]} <= counted
    assert scene.steps(asker.id) == steps
    assert unit.check is not None
    assert scene.first.read(unit.check.statement, **unit.check.params)[0][0] == seq
