"""Two admit at once, or one admits what another moves: limits hold, and nobody is rung twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hands import Together, result
from scenes import PLACE, RING_AGAIN, Scene, child_of, creation, finishing, parking

from polos.journal.admission import READ_FENCE_OF_ADMISSION, READ_HELD, admit_runs
from polos.journal.children import cancel_run
from polos.journal.queues import Limits, declare_queue
from polos.journal.runs import Claim, claim_from, claim_run
from polos.journal.statements import Unit
from polos.journal.workers import WorkerRow, register_worker


@pytest.fixture
def limited(scene: Scene) -> Iterator[Scene]:
    """A queue `q` with a limit of 1, and the row of its deployment."""
    worker = WorkerRow("w", "w", 1, **PLACE, kind="celery", routes="polos", concurrency=1)
    scene.do(register_worker(worker, []))
    scene.do(declare_queue(**PLACE, name="q", limits=Limits(1)))
    return scene


def seen(scene: Scene) -> int:
    return int(scene.first.read(READ_FENCE_OF_ADMISSION, **PLACE)[0][0])


def admission(run_id: str, seen: int) -> Unit:
    return admit_runs([run_id], **PLACE, seen=seen, ring_again=RING_AGAIN)


def held(scene: Scene) -> int:
    return sum(row[2] for row in scene.first.read(READ_HELD, **PLACE))


def admitted(scene: Scene, run_id: str) -> Claim:
    assert scene.do(admission(run_id, seen(scene)))
    return claim_from(scene.do(claim_run(run_id, "w", **PLACE))[0])


def cancelling(run_id: str) -> Unit:
    return cancel_run(
        run_id,
        root_id=run_id,
        parent_id=None,
        parent_step=None,
        cancelled_by="user",
        error="{}",
        ring_again=RING_AGAIN,
    )


def test_of_two_that_admit_at_once_the_second_is_refused(limited: Scene, together: Together) -> None:
    one, two = limited.queued(queue="q"), limited.queued(queue="q")
    known = seen(limited)
    first, second = limited.hand(), limited.hand()
    assert first.begin(admission(one, known))[0]
    late = together.commit_behind(second, admission(two, known))
    first.end()
    assert result(late) == []
    assert (limited.run(one)["slot"], limited.run(two)["slot"]) == ("held", "wanted")


def test_one_that_read_before_a_limit_changed_is_refused(limited: Scene) -> None:
    run = limited.queued(queue="q")
    known = seen(limited)
    limited.do(declare_queue(**PLACE, name="q", limits=Limits(2)))
    assert limited.do(admission(run, known)) == []
    assert limited.run(run)["slot"] == "wanted"


def test_a_run_that_is_cancelled_meanwhile_is_not_admitted(limited: Scene, together: Together) -> None:
    run = limited.queued(queue="q")
    known = seen(limited)
    user, admitter = limited.hand(), limited.hand()
    user.begin(cancelling(run))
    late = together.commit_behind(admitter, admission(run, known))
    user.end()
    assert result(late) == []
    assert held(limited) == 0


def test_a_cancel_behind_an_admission_frees_the_slot(limited: Scene, together: Together) -> None:
    run = limited.queued(queue="q")
    admitter, user = limited.hand(), limited.hand()
    admitter.begin(admission(run, seen(limited)))
    late = together.commit_behind(user, cancelling(run))
    admitter.end()
    assert result(late)
    assert (limited.run(run)["status"], held(limited)) == ("cancelled", 0)


@pytest.mark.parametrize("parks_first", [True, False])
def test_a_slot_is_neither_lost_nor_doubled_when_a_run_parks_as_it_is_woken(
    limited: Scene, together: Together, parks_first: bool
) -> None:
    run = limited.queued(queue="q")
    parent = admitted(limited, run)
    child = child_of(parent, "child")
    assert limited.do(creation(parent, child))
    done = finishing(limited.claimed(child.id, "b"))
    parker, finisher = limited.hand(), limited.hand()
    first, second = (parking(parent), done) if parks_first else (done, parking(parent))
    ahead, behind = (parker, finisher) if parks_first else (finisher, parker)
    ahead.begin(first)
    late = together.commit_behind(behind, second)
    ahead.end()
    answer, now = result(late), limited.run(run)
    if parks_first:
        assert answer
        assert (now["status"], now["slot"], now["ring_at"]) == ("queued", "wanted", None)
    else:
        assert answer == []
        assert (now["status"], now["slot"]) == ("running", "held")


def test_a_queue_that_gets_a_limit_counts_a_run_that_is_claimed_meanwhile(
    scene: Scene, together: Together
) -> None:
    worker = WorkerRow("w", "w", 1, **PLACE, kind="celery", routes="polos", concurrency=1)
    scene.do(register_worker(worker, []))
    run = scene.queued(queue="q")
    claimer, declarer = scene.hand(), scene.hand()
    claimer.begin(claim_run(run, "w", **PLACE))
    late = together.commit_behind(declarer, declare_queue(**PLACE, name="q", limits=Limits(1)))
    claimer.end()
    assert result(late)
    assert scene.run(run)["slot"] == "held"
