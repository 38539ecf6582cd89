"""A turn belongs to whoever executes it, whatever becomes of the coordinator that scheduled it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hands import Together, result
from scenes import DONE, Scene, claim, finishing, recording, turn_claim, turn_completion

from polos.engine.execution import Execution
from polos.engine.tasks import install_task_factory
from polos.journal.closing import close_run
from polos.journal.recovery import put_back_turns
from polos.journal.runs import Claim
from polos.journal.steps import StepRow
from polos.journal.turns import TurnClaim
from polos.journal.writer import Journal

TURN = "$turn:1"


def test_a_turn_that_ends_after_its_coordinator_died_is_used(scene: Scene) -> None:
    run = scene.running("a")
    turn = scene.turn(run, TURN, worker="b")
    scene.lose("a")
    again = scene.claimed(run.id, "c")

    [(status, owner, *_)] = scene.do(turn_completion(turn, "b"))
    assert (status, owner) == ("running", "c")  # the one to nudge is the new owner
    assert scene.run(run.id)["wakes"] == again.wakes + 1
    assert scene.steps(run.id)[TURN].output == DONE.output


def test_a_turn_that_ends_while_its_run_is_claimed_again_is_used(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    turn = scene.turn(run, TURN, worker="b")
    scene.lose("a")
    claimer, completer = scene.hand(), scene.hand()
    claimer.begin(claim(run.id, "c"))
    late = together.commit_behind(completer, turn_completion(turn, "b"))
    claimer.end()

    [(status, owner, *_)] = result(late)
    assert (status, owner) == ("running", "c")


@pytest.mark.parametrize("is_root", [True, False])
def test_a_turn_that_ends_between_the_end_of_its_run_and_its_closing_has_no_outcome(
    scene: Scene, *, is_root: bool
) -> None:
    """As when the time of the run is over: it would have the number of another event."""
    parent = scene.running("a")
    run = parent if is_root else scene.claimed(scene.child(parent).id, "a")
    turn = scene.turn(run, TURN, worker="b")
    scene.do(finishing(run))
    events = scene.run(parent.id)["event_seq"]

    assert scene.do(turn_completion(turn, "b", root_id=parent.id)) == []
    assert (scene.steps(run.id)[TURN].status, scene.steps(run.id)[TURN].seq) == ("running", None)
    assert scene.run(parent.id)["event_seq"] == events
    scene.do(close_run(run.id))
    assert scene.steps(run.id)[TURN].status == "failed"


def test_an_executor_that_lost_its_turn_is_refused(scene: Scene) -> None:
    run = scene.running("a")
    stale = scene.turn(run, TURN, worker="b")
    scene.lose("b")
    [row] = scene.do(turn_claim(run.id, TURN, "c"))
    fresh = TurnClaim(*row)

    before = scene.run(run.id)["wakes"]
    assert scene.do(turn_completion(stale, "b")) == []
    assert scene.run(run.id)["wakes"] == before
    assert scene.steps(run.id)[TURN].seq is None
    assert scene.do(turn_completion(fresh, "c"))


def test_the_same_worker_is_refused_for_an_older_attempt_of_a_turn(scene: Scene) -> None:
    run = scene.running("a")
    stale = scene.turn(run, TURN, worker="b")
    scene.lose("b")
    scene.do(turn_claim(run.id, TURN, "b"))

    assert scene.do(turn_completion(stale, "b")) == []


def test_a_completion_that_waits_for_the_turn_to_be_given_away_is_refused(
    scene: Scene, together: Together
) -> None:
    run = scene.running("a")
    turn = scene.turn(run, TURN, worker="b")
    sweeper, executor = scene.hand(), scene.hand()
    sweeper.begin(put_back_turns("b"), turn_claim(run.id, TURN, "c"))
    late = together.commit_behind(executor, turn_completion(turn, "b"))
    sweeper.end()

    assert result(late) == []
    step = scene.steps(run.id)[TURN]
    assert (step.status, step.seq, step.output) == ("running", None, None)


def test_a_sweeper_puts_back_no_turn_whose_completion_is_open(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    turn = scene.turn(run, TURN, worker="b")
    executor, sweeper = scene.hand(), scene.hand()
    executor.begin(turn_completion(turn, "b"))
    if scene.database.is_sqlite:
        swept = together.commit_behind(sweeper, put_back_turns("b"))
        executor.end()
        assert result(swept) == []
    else:
        assert sweeper.commit(put_back_turns("b")) == [[]]
        executor.end()
        assert sweeper.commit(put_back_turns("b")) == [[]]

    assert scene.steps(run.id)[TURN].status == "completed"


def test_of_two_executors_one_gets_a_turn(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    scene.turn(run, TURN)
    first, second = scene.hand(), scene.hand()
    [won] = first.begin(turn_claim(run.id, TURN, "b"))
    late = together.commit_behind(second, turn_claim(run.id, TURN, "c"))
    first.end()

    assert won
    assert result(late) == []


# -- what a replay does with it


@asynccontextmanager
async def execution_of(scene: Scene, claim: Claim) -> AsyncIterator[Execution]:
    install_task_factory(asyncio.get_running_loop())
    journal = Journal.open(scene.database)
    execution = Execution(claim, journal, worker_id="c")
    await execution.load()
    try:
        yield execution
    finally:
        await execution.put_away(RuntimeError("the test ends"), patience_seconds=1.0)
        await journal.close()


async def never(_: int) -> None:
    pytest.fail("the replay started a step that is under way")


async def test_a_replay_waits_for_a_turn_that_somebody_executes(scene: Scene) -> None:
    run = scene.running("a")
    turn = scene.turn(run, TURN, worker="b")
    scene.lose("a")
    async with execution_of(scene, scene.claimed(run.id, "c")) as execution:

        async def body() -> StepRow:
            return await execution.outcome(TURN, "turn", never)

        task = execution.start(body)
        assert not await execution.deliver_next()
        assert execution.only_waits()
        scene.do(turn_completion(turn, "b"))
        execution.look_again()

        assert await execution.deliver_next()
        row = await asyncio.wait_for(task, 5)
        assert row.output == DONE.output


async def test_a_replay_that_starts_after_the_turn_ended_uses_it(scene: Scene) -> None:
    run = scene.running("a")
    turn = scene.turn(run, TURN, worker="b")
    scene.lose("a")
    scene.do(turn_completion(turn, "b"))
    async with execution_of(scene, scene.claimed(run.id, "c")) as execution:
        task = execution.start(lambda: execution.outcome(TURN, "turn", never))

        assert await execution.deliver_next()
        row = await asyncio.wait_for(task, 5)
        assert row.output == DONE.output


async def test_what_the_dead_coordinator_recorded_last_reaches_the_replay(scene: Scene) -> None:
    run = scene.running("a")
    scene.do(recording(run, "a", "first"))
    scene.do(recording(run, "a", "second"))
    scene.lose("a")
    async with execution_of(scene, scene.claimed(run.id, "c")) as execution:

        async def body() -> list[str | None]:
            return [(await execution.outcome(name, "run", never)).output for name in ("first", "second")]

        task = execution.start(body)
        assert await execution.deliver_next()
        assert await execution.deliver_next()
        assert await asyncio.wait_for(task, 5) == [DONE.output, DONE.output]
