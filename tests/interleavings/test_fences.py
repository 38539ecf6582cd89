"""A coordinator's write and the claim of another worker: one of them comes first, on every database."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hands import Together, result
from scenes import (
    RING_AGAIN,
    Scene,
    child_of,
    claim,
    creation,
    finishing,
    parking,
    recording,
    scheduling,
)

from polos.journal.children import cancel_run
from polos.journal.recovery import put_back_runs
from polos.journal.runs import Claim, block_run, claim_from, hand_back_run, retry_run
from polos.journal.statements import Unit

WRITES: dict[str, Callable[[Claim], Unit]] = {
    "record a step": lambda run: recording(run, "a"),
    "schedule a turn": scheduling,
    "create a child": lambda run: creation(run, child_of(run)),
    "park": parking,
    "finish": finishing,
    "retry": lambda run: retry_run(run.id, run.attempt, error="e", delay=0.0),
    "block": lambda run: block_run(run.id, run.attempt, error="e"),
    "hand back": lambda run: hand_back_run(run.id, run.attempt, ring_again=RING_AGAIN),
}
every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())


def cancelling(run: Claim) -> Unit:
    return cancel_run(
        run.id,
        root_id=run.root_id,
        parent_id=None,
        parent_step=None,
        cancelled_by="user",
        error="e",
        ring_again=RING_AGAIN,
    )


def test_a_hand_back_waits_for_an_open_write_and_the_next_attempt_reads_it(
    scene: Scene, together: Together
) -> None:
    run = scene.running("a")
    writer, taker = scene.hand(), scene.hand()
    [recorded] = writer.begin(recording(run, "a"))
    back = together.commit_behind(taker, hand_back_run(run.id, run.attempt, ring_again=RING_AGAIN))
    writer.end()

    assert recorded
    assert result(back)
    assert scene.claimed(run.id, "b").attempt == 2
    assert scene.steps(run.id)["step"].output == '"done"'


def test_a_sweeper_puts_back_no_run_whose_write_is_open(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    writer, sweeper, other = scene.hand(), scene.hand(), scene.hand()
    writer.begin(recording(run, "a"))
    if scene.database.is_sqlite:  # one writer at a time: the sweeper stands behind it
        swept = together.commit_behind(sweeper, put_back_runs("a"))
        writer.end()
        assert result(swept) == [(run.id,)]
    else:  # rows that are locked are left to the next sweep
        assert sweeper.commit(put_back_runs("a")) == [[]]
        assert other.commit(claim(run.id, "b")) == [[]]
        writer.end()
        assert sweeper.commit(put_back_runs("a")) == [[(run.id,)]]

    assert scene.claimed(run.id, "b").attempt == 2
    assert "step" in scene.steps(run.id)


@every_write
def test_a_write_that_waits_for_the_claim_of_another_worker_is_refused(
    scene: Scene, together: Together, write: Callable[[Claim], Unit]
) -> None:
    run = scene.running("a")
    stale, taker = scene.hand(), scene.hand()
    _, claimed = taker.begin(put_back_runs("a"), claim(run.id, "b"))
    late = together.commit_behind(stale, write(run))
    taker.end()

    assert claim_from(claimed[0]).attempt == 2
    assert result(late) == []
    assert scene.steps(run.id) == {}
    now = scene.run(run.id)
    assert (now["status"], now["owner"], now["attempt"]) == ("running", "b", 2)
    assert now["seq"] == run.seq


@every_write
def test_a_write_that_waits_for_a_cancel_is_refused(
    scene: Scene, together: Together, write: Callable[[Claim], Unit]
) -> None:
    run = scene.running("a")
    stale, user = scene.hand(), scene.hand()
    user.begin(cancelling(run))
    late = together.commit_behind(stale, write(run))
    user.end()

    assert result(late) == []
    assert scene.steps(run.id) == {}
    assert scene.run(run.id)["status"] == "cancelled"


@every_write
def test_a_write_after_the_claim_of_another_worker_is_refused(
    scene: Scene, write: Callable[[Claim], Unit]
) -> None:
    run = scene.running("a")
    scene.lose("a")
    scene.claimed(run.id, "b")

    assert scene.do(write(run)) == []
    assert scene.steps(run.id) == {}
    assert (scene.run(run.id)["owner"], scene.run(run.id)["attempt"]) == ("b", 2)


@every_write
def test_only_the_stale_unit_of_a_batch_is_refused(
    scene: Scene, together: Together, write: Callable[[Claim], Unit]
) -> None:
    run, neighbour = scene.running("a"), scene.running("n")
    batch, taker = scene.hand(), scene.hand()
    taker.begin(put_back_runs("a"), claim(run.id, "b"))
    both = together.commit_behind(batch, write(run), recording(neighbour, "n"))
    taker.end()

    stale, recorded = both.result()
    assert stale == []
    assert recorded
    assert scene.steps(run.id) == {}
    assert "step" in scene.steps(neighbour.id)


def test_of_two_claims_one_wins(scene: Scene, together: Together) -> None:
    run_id = scene.queued()
    first, second = scene.hand(), scene.hand()
    [won] = first.begin(claim(run_id, "a"))
    late = together.commit_behind(second, claim(run_id, "b"))
    first.end()

    assert won
    assert result(late) == []
    assert scene.run(run_id)["owner"] == "a"
