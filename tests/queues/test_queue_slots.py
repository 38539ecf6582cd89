"""Limits: who gets a slot, who keeps it, and when it is free again."""

from __future__ import annotations

import threading

import pytest
from counter import HERE, Counter

from polos.journal.children import cancel_run, finish_child
from polos.journal.ends import Ending
from polos.journal.recovery import due_runs, put_back_runs
from polos.journal.runs import block_run, hand_back_run, retry_run, unblock_run
from polos.journal.states import RunStatus


def test_a_run_of_a_limited_queue_waits_for_a_slot(counter: Counter) -> None:
    counter.limit("q", 1)
    run = counter.start("q")
    assert counter.run(run)["slot"] == "wanted"
    assert counter.run(run)["ring_at"] is None
    assert not counter.can_be_claimed(run)


def test_no_more_are_admitted_than_the_limit_allows(counter: Counter) -> None:
    counter.limit("q", 2)
    runs = counter.start_many(5, "q")
    assert counter.admitted() == runs[:2]
    assert counter.admitted() == []
    assert counter.slots(*runs) == ["held", "held", "wanted", "wanted", "wanted"]


def test_an_end_lets_the_next_begin(counter: Counter) -> None:
    counter.limit("q", 1)
    first, second = counter.start_many(2, "q")
    counter.admitted()
    counter.end(counter.claim(first))
    assert counter.run(first)["slot"] is None
    assert counter.admitted(("q", "")) == [second]


def test_the_limit_is_for_each_key(counter: Counter) -> None:
    counter.limit("q", 1)
    ann, _, bob = (counter.start("q", concurrency_key=key) for key in ("ann", "ann", "bob"))
    assert sorted(counter.admitted()) == sorted([ann, bob])


def test_a_look_at_one_lane_admits_no_other(counter: Counter) -> None:
    counter.limit("q", 1)
    counter.start("q", concurrency_key="ann")
    bob = counter.start("q", concurrency_key="bob")
    assert counter.admitted(("q", "bob")) == [bob]


def test_a_parked_run_frees_its_slot_and_wants_one_when_it_is_woken(counter: Counter) -> None:
    counter.limit("q", 1)
    parent, other = counter.start_many(2, "q")
    counter.admitted()
    claim = counter.claim(parent)
    child = counter.child(claim, "free")
    counter.park(claim)
    assert counter.slots(parent) == ["released"]
    assert counter.admitted() == [other]
    done = counter.claim(child)
    [(_, status, _, _)] = counter.do(ending_of(done))
    assert status == RunStatus.QUEUED
    assert counter.slots(parent) == ["wanted"]
    assert counter.admitted() == []
    counter.end(counter.claim(other))
    assert counter.admitted() == [parent]


def ending_of(child):
    return finish_child(
        child.id,
        child.attempt,
        Ending(RunStatus.COMPLETED, output="1"),
        root_id=child.root_id,
        parent_id=child.parent_id,
        parent_step=child.parent_step,
        ring_again=60.0,
    )


def test_a_queue_may_say_that_its_runs_keep_their_slots_while_they_wait(counter: Counter) -> None:
    counter.limit("q", 1, hold_while_waiting=True)
    parent, other = counter.start_many(2, "q")
    counter.admitted()
    claim = counter.claim(parent)
    assert claim.keeps_slot
    child = counter.child(claim, "free")
    counter.park(claim)
    assert counter.admitted() == []
    counter.do(ending_of(counter.claim(child)))
    assert counter.slots(parent) == ["held"]
    assert counter.run(parent)["ring_at"] is not None
    assert counter.slots(other) == ["wanted"]


def test_a_child_in_the_queue_of_its_parent_gets_the_parents_slot(counter: Counter) -> None:
    counter.limit("q", 1)
    parent = counter.start("q")
    counter.admitted()
    claim = counter.claim(parent)
    child = counter.child(claim, "q")
    assert counter.slots(child) == ["wanted"]
    assert counter.admitted() == []
    counter.park(claim)
    assert counter.admitted(("q", "")) == [child]


@pytest.mark.parametrize("way", ["lost", "handed back", "retried"])
def test_a_run_that_begins_again_keeps_its_slot(counter: Counter, way: str) -> None:
    counter.limit("q", 1)
    run, other = counter.start_many(2, "q")
    counter.admitted()
    claim = counter.claim(run)
    units = {
        "lost": put_back_runs("w"),
        "handed back": hand_back_run(run, claim.attempt, ring_again=60.0),
        "retried": retry_run(run, claim.attempt, error="{}", delay=0.0),
    }
    assert counter.do(units[way])
    assert counter.slots(run, other) == ["held", "wanted"]
    assert counter.admitted() == []
    assert counter.claim(run).slot == "held"


def test_a_blocked_run_keeps_nobody_out(counter: Counter) -> None:
    counter.limit("q", 1)
    run, other = counter.start_many(2, "q")
    counter.admitted()
    assert counter.do(block_run(run, counter.claim(run).attempt, error="{}"))
    assert counter.admitted() == [other]
    assert counter.do(unblock_run(run))
    assert counter.slots(run) == ["wanted"]
    assert counter.run(run)["ring_at"] is None


@pytest.mark.parametrize("is_admitted", [False, True])
def test_a_cancelled_run_keeps_nobody_out(counter: Counter, is_admitted: bool) -> None:
    counter.limit("q", 1)
    run = counter.start("q")
    if is_admitted:
        counter.admitted()
    other = counter.start("q")
    assert counter.do(
        cancel_run(
            run,
            root_id=run,
            parent_id=None,
            parent_step=None,
            cancelled_by="user",
            error="{}",
            ring_again=60.0,
        )
    )
    assert counter.admitted() == [other]


def test_sweepers_do_not_ring_for_a_run_without_a_slot(counter: Counter) -> None:
    counter.limit("q", 1)
    counter.start_many(2, "q")
    counter.start("q", delay=0.001)
    assert counter.do(due_runs(ring_again=0.0, ring_again_max=0.0)) == []


def test_a_queue_that_gets_a_limit_counts_what_is_under_way(counter: Counter) -> None:
    running, rung, waiting = counter.start_many(3, "q")
    counter.claim(running)
    counter.park(counter.claim(waiting))
    counter.limit("q", 2)
    later = counter.start("q")
    assert counter.slots(running, rung, waiting, later) == ["held", "held", "released", "wanted"]
    assert counter.admitted() == []


def test_what_is_deferred_is_limited_too_when_its_queue_gets_a_limit(counter: Counter) -> None:
    counter.start_many(counter.window, "other")
    late = counter.start_many(3, "q")
    assert counter.slots(*late) == ["deferred"] * 3
    counter.limit("q", 1)
    assert counter.slots(*late) == ["wanted"] * 3


def test_a_limit_that_code_declares_again_leaves_alone_what_a_person_set(counter: Counter) -> None:
    counter.limit("q", 1)
    counter.change("q", concurrency_limit=2)
    counter.limit("q", 1)
    counter.start_many(3, "q")
    assert len(counter.admitted()) == 2


def test_a_limit_that_code_changes_counts(counter: Counter) -> None:
    counter.limit("q", 1)
    counter.limit("q", 3)
    counter.start_many(4, "q")
    assert len(counter.admitted()) == 3


def test_a_paused_queue_begins_nothing_and_goes_on_when_it_is_resumed(counter: Counter) -> None:
    first = counter.start("q")
    counter.change("q", is_paused=1)
    second = counter.start("q")
    assert counter.slots(first, second) == ["held", "wanted"]
    assert counter.admitted() == []
    counter.change("q", is_paused=0)
    assert counter.admitted() == [second]
    assert counter.slots(counter.start("q")) == [None]


def test_a_paused_queue_lets_go_on_what_had_begun(counter: Counter) -> None:
    counter.limit("q", 1)
    parent = counter.start("q")
    counter.admitted()
    claim = counter.claim(parent)
    child = counter.child(claim, "free")
    counter.park(claim)
    counter.change("q", is_paused=1)
    counter.do(ending_of(counter.claim(child)))
    assert counter.admitted() == [parent]


def test_whoever_read_before_another_admitted_reads_again(counter: Counter) -> None:
    """Two that admit at once never exceed a limit: one of them is refused by the fence."""
    counter.limit("q", 3)
    counter.start_many(60, "q")
    counter.window = 100
    together = threading.Barrier(4)
    found: list[list[str]] = []

    def admit() -> None:
        admitter = counter.admitter()
        together.wait(20)
        found.append([bell.run_id for _ in range(5) for bell in admitter.admit().bells])

    threads = [threading.Thread(target=admit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    admitted = [run for runs in found for run in runs]
    assert len(found) == 4
    assert len(admitted) == len(set(admitted)) == 3


def test_admission_belongs_to_one_deployment(counter: Counter) -> None:
    counter.limit("q", 1)
    elsewhere = counter.start("flow", deployment="other")
    counter.start_many(counter.window, "flow", deployment="other")
    assert counter.slots(elsewhere) == [None]
    assert counter.slots(counter.start("flow")) == [None]
    assert HERE["deployment"] == "default"
