"""A run falls asleep while something completes for it: it is woken, whichever commits first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hands import Together, result
from scenes import RING_AGAIN, Scene, child_of, claim, creation, finishing, parking, turn_completion

from polos.journal.children import cancel_run
from polos.journal.recovery import ring_children
from polos.journal.runs import Claim
from polos.journal.statements import Unit


def completed_turn(scene: Scene, run: Claim) -> Unit:
    return turn_completion(scene.turn(run, worker="b"), "b")


def finished_child(scene: Scene, run: Claim) -> Unit:
    return finishing(scene.claimed(scene.child(run).id, "b"))


def cancelled_child(scene: Scene, run: Claim) -> Unit:
    child = scene.child(run)
    return cancel_run(
        child.id,
        root_id=run.root_id,
        parent_id=run.id,
        parent_step=child.parent_step,
        cancelled_by="user",
        error="e",
        ring_again=RING_AGAIN,
    )


Completion = Callable[[Scene, Claim], Unit]
completions = pytest.mark.parametrize("completion", [completed_turn, finished_child, cancelled_child])


def only_step(scene: Scene, run: Claim) -> str:
    [step] = scene.steps(run.id).values()
    return step.status


@completions
def test_a_run_does_not_fall_asleep_over_a_completion_that_is_open(
    scene: Scene, together: Together, completion: Completion
) -> None:
    run = scene.running("a")
    unit = completion(scene, run)
    completer, parker = scene.hand(), scene.hand()
    completer.begin(unit)
    parked = together.commit_behind(parker, parking(run))
    completer.end()

    assert result(parked) == []
    now = scene.run(run.id)
    assert (now["status"], now["owner"], now["wakes"]) == ("running", "a", run.wakes + 1)
    assert only_step(scene, run) in {"completed", "failed"}


@completions
def test_a_completion_that_waits_for_a_park_queues_the_run_again(
    scene: Scene, together: Together, completion: Completion
) -> None:
    run = scene.running("a")
    unit = completion(scene, run)
    completer, parker = scene.hand(), scene.hand()
    [parked] = parker.begin(parking(run))
    completed = together.commit_behind(completer, unit)
    parker.end()

    assert parked
    assert result(completed)
    now = scene.run(run.id)
    assert (now["status"], now["owner"]) == ("queued", None)
    assert now["ring_at"] is not None
    assert only_step(scene, run) in {"completed", "failed"}


@completions
def test_a_completion_answers_with_the_run_as_it_now_stands(scene: Scene, completion: Completion) -> None:
    run = scene.running("a")
    unit = completion(scene, run)
    scene.do(parking(run))

    [answer] = scene.do(unit)
    assert "queued" in answer  # whoever completed it rings


def test_two_completions_at_once_are_both_counted(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    first_turn, second_turn = scene.turn(run, "$turn:1", worker="b"), scene.turn(run, "$turn:2", worker="c")
    first, second = scene.hand(), scene.hand()
    first.begin(turn_completion(first_turn, "b"))
    late = together.commit_behind(second, turn_completion(second_turn, "c"))
    first.end()

    assert result(late)
    assert scene.run(run.id)["wakes"] == run.wakes + 2
    assert len({step.seq for step in scene.steps(run.id).values()}) == 2


def test_a_park_that_has_seen_the_completion_puts_the_run_to_sleep(scene: Scene) -> None:
    run = scene.running("a")
    scene.do(completed_turn(scene, run))

    assert scene.do(parking(run, seen_wakes=run.wakes)) == []
    assert scene.do(parking(run, seen_wakes=run.wakes + 1))
    assert scene.run(run.id)["status"] == "waiting"


def test_a_woken_run_is_claimed_once(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    unit = completed_turn(scene, run)
    scene.do(parking(run))
    scene.do(unit)
    first, second = scene.hand(), scene.hand()
    [won] = first.begin(claim(run.id, "b"))
    late = together.commit_behind(second, claim(run.id, "c"))
    first.end()

    assert won
    assert result(late) == []


def test_children_of_a_dead_worker_s_runs_are_due_at_once_on_whatever_route(scene: Scene) -> None:
    """It may have died between the commit that created them and their doorbell."""
    lost, alive = scene.running("a"), scene.running("b")
    child, other = replace(child_of(lost), route="elsewhere"), child_of(alive)
    scene.do(creation(lost, child))
    scene.do(creation(alive, other))

    assert scene.do(ring_children("a")) == [(child.id,)]
    assert scene.run(child.id)["ring_at"] < scene.run(other.id)["ring_at"]
