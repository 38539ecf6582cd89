"""Ends of runs that append to one session, side by side, repeated, and against deletion."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hands import Hand, Together, result
from scenes import RING_AGAIN, Scene, child_of, creation
from sqlalchemy import select

from polos.agents.remembering import input_left
from polos.journal.children import finish_child
from polos.journal.ends import Ending, finish_run
from polos.journal.forgetting import (
    READ_FORGOTTEN,
    forget,
    forget_old,
    remove_empty,
    remove_forgotten,
    replace_memory,
)
from polos.journal.memory import (
    READ_HISTORY,
    READ_WATERMARK,
    M,
    NewMessage,
    NewSummary,
    Remembered,
    SessionKey,
    Watermark,
    Y,
    history_params,
    watermark_of,
)
from polos.journal.retries import retry_ended
from polos.journal.runs import Claim
from polos.journal.statements import Statement, Unit
from polos.journal.states import RunStatus
from polos.settings import Settings

KEY = SessionKey("default", "talk", "helper")
OTHER = SessionKey("default", "other", "helper")
ALL = Statement(select(M.session_id, M.number, M.run_id, M.item).order_by(M.session_id, M.number))
SUMMARY_ROWS = Statement(select(Y.number, Y.text, Y.first_message, Y.last_message).order_by(Y.number))


def talking(scene: Scene, worker: str = "a", **values: Any) -> Claim:
    """A run of the agent in the session, claimed."""
    return scene.running(worker, kind="agent", name="helper", session_id="talk", **values)


def said(run: Claim, *texts: str, **values: Any) -> Remembered:
    messages = tuple(NewMessage(json.dumps(f"{run.id} {text}"), 5) for text in texts or ("ask", "answer"))
    return Remembered(**{"key": KEY, "messages": messages, "given": 1, **values})


def end(run: Claim, left: Remembered, status: RunStatus = RunStatus.COMPLETED) -> Unit:
    left = left if status is RunStatus.COMPLETED else left.of_failure()
    ending = Ending(status, output='"end"')
    if run.parent_id is None or run.parent_step is None:
        return finish_run(run.id, run.attempt, ending, root_id=run.root_id, remembered=left)
    return finish_child(
        run.id,
        run.attempt,
        ending,
        root_id=run.root_id,
        parent_id=run.parent_id,
        parent_step=run.parent_step,
        ring_again=RING_AGAIN,
        remembered=left,
    )


def stored(scene: Scene, key: SessionKey = KEY) -> list[tuple[int, Any]]:
    """Return (number, text) of all messages there are."""
    rows = scene.first.read(ALL)
    return [(number, json.loads(item)) for session, number, _, item in rows if session == key.session_id]


def mark(hand: Hand, key: SessionKey = KEY) -> Watermark:
    return watermark_of(key, hand.read(READ_WATERMARK, **key.params()))


def loaded(scene: Scene, watermark: Watermark) -> list[str]:
    """Return what a run with this watermark reads; a summary as it is."""
    rows = scene.first.read(READ_HISTORY, **history_params("default", watermark))
    return [text if number == 0 else json.loads(text) for number, text in rows]


def test_ends_of_one_session_wait_for_each_other(scene: Scene, together: Together) -> None:
    """Whoever comes second numbers its messages behind those of the first: blocks never interleave."""
    one, two = talking(scene), talking(scene, "b")
    left, right = scene.hand(), scene.hand()

    assert left.begin(end(one, said(one)))[0]
    done = together.commit_behind(right, end(two, said(two, "ask", "call", "output", "answer")))
    left.end()
    assert result(done)

    texts = [(1, f"{one.id} ask"), (2, f"{one.id} answer")]
    texts += [
        (3 + place, f"{two.id} {text}") for place, text in enumerate(("ask", "call", "output", "answer"))
    ]
    assert stored(scene) == texts


def test_an_end_that_is_rolled_back_leaves_nothing(scene: Scene, together: Together) -> None:
    one, two = talking(scene), talking(scene, "b")
    left, right = scene.hand(), scene.hand()

    left.begin(end(one, said(one)))
    done = together.commit_behind(right, end(two, said(two)))
    left.abandon()
    assert result(done)

    assert stored(scene) == [(1, f"{two.id} ask"), (2, f"{two.id} answer")]


def test_an_end_that_is_repeated_appends_once(scene: Scene) -> None:
    """As after a commit whose answer was lost."""
    run = talking(scene)
    summary = NewSummary("so far", 2, loaded=0, own=1)
    unit = end(run, said(run, summary=summary))
    for _ in range(3):
        scene.first.commit(unit)
    assert stored(scene) == [(1, f"{run.id} ask"), (2, f"{run.id} answer")]
    assert scene.first.read(SUMMARY_ROWS) == [(1, "so far", 1, 1)]
    assert mark(scene.first) == Watermark("talk", "helper", run.id, after=1, until=2, summary=1, tokens=7)


def test_whoever_is_fenced_appends_nothing(scene: Scene, together: Together) -> None:
    """Its run was put back and claimed by another worker, which ends it."""
    old = talking(scene)
    scene.lose("a")
    new = scene.claimed(old.id, "b")
    left, right = scene.hand(), scene.hand()

    left.begin(end(new, said(new)))
    done = together.start(lambda: right.commit(end(old, said(old, "ask", "another answer"))))
    left.end()

    assert result(done) == []
    assert stored(scene) == [(1, f"{new.id} ask"), (2, f"{new.id} answer")]


def test_a_child_appends_in_the_transaction_of_its_parents_step(scene: Scene) -> None:
    parent = scene.running("a", session_id="talk")
    new = replace(child_of(parent), kind="agent", name="helper", session_id="talk")
    assert scene.do(creation(parent, new))
    child = scene.claimed(new.id, "b")
    left = scene.hand()

    left.begin(end(child, said(child)))
    assert (stored(scene), scene.steps(parent.id)["child"].seq) == ([], None)
    left.end()
    assert stored(scene) == [(1, f"{child.id} ask"), (2, f"{child.id} answer")]
    assert scene.steps(parent.id)["child"].seq is not None


def test_a_failed_run_leaves_its_input_and_its_retry_the_rest(scene: Scene) -> None:
    """What another run said meanwhile lies between; nothing is doubled, however often it fails."""
    run = talking(scene)
    left = said(run, "ask", "call", "output", "answer")
    scene.do(end(run, left, RunStatus.FAILED))
    between = talking(scene)
    scene.do(end(between, said(between)))
    for status in (RunStatus.FAILED, RunStatus.COMPLETED):
        assert scene.do(retry_ended(run.id, event=("agent_retry", "{}"), topic="t", ring_again=RING_AGAIN))
        run = scene.claimed(run.id, "a")
        assert scene.do(end(run, left, status))
    assert stored(scene) == [
        (1, f"{run.id} ask"),
        (2, f"{between.id} ask"),
        (3, f"{between.id} answer"),
        (4, f"{run.id} call"),
        (5, f"{run.id} output"),
        (6, f"{run.id} answer"),
    ]


def test_a_run_whose_workers_died_leaves_its_input(scene: Scene) -> None:
    """It fails before its code begins: the input is what the run was created with."""
    run = talking(scene, input='{"input": "hello", "streaming": false}')
    left = input_left(run, Settings())
    assert left is not None
    scene.do(end(run, left, RunStatus.FAILED))
    assert stored(scene) == [(1, {"role": "user", "content": "hello"})]
    assert input_left(talking(scene, input="5"), Settings()) is None


def test_batches_lock_sessions_in_one_order(postgres_only: Any, together: Together) -> None:
    """Two workers end runs of the same two sessions, in the opposite order of their roots."""
    scene = Scene(postgres_only)
    try:
        for key in (KEY, OTHER):
            first = talking(scene)
            scene.do(end(first, said(first, key=key)))
        runs = [talking(scene, worker) for worker in "abcd"]
        keys = [OTHER, KEY, KEY, OTHER]  # of runs in the order of their ids
        units = [end(run, said(run, key=key)) for run, key in zip(runs, keys, strict=True)]
        left, right = scene.hand(), scene.hand()
        left.begin(units[0])
        done = together.commit_behind(right, *units[2:])
        # Had the other locked the first session before it waited, this would be a deadlock.
        left_more = together.start(lambda: left.begin(units[1]))
        assert left_more.result(20)[0]
        left.end()
        assert all(done.result(20))
        assert len(stored(scene)) + len(stored(scene, OTHER)) == 2 * 2 + 4 * 2
    finally:
        scene.close()


# -- summaries


def test_a_summary_stands_for_own_messages_only_where_nobodys_came_between(scene: Scene) -> None:
    first = talking(scene)
    scene.do(end(first, said(first)))
    seen = mark(scene.first)
    one, two = talking(scene), talking(scene, "b")
    known = {"generation": seen.generation, "watermark": seen.until}
    scene.do(end(two, said(two)))
    scene.do(end(one, said(one, summary=NewSummary("all", 9, loaded=2, own=1), **known)))
    assert scene.first.read(SUMMARY_ROWS) == [(1, "all", 1, 2)]
    assert loaded(scene, mark(scene.first)) == [
        "all",
        f"{two.id} ask",
        f"{two.id} answer",
        f"{one.id} ask",
        f"{one.id} answer",
    ]


def test_of_two_summaries_the_one_that_stands_for_more_is_loaded(scene: Scene) -> None:
    for _ in range(2):
        run = talking(scene)
        scene.do(end(run, said(run)))
    seen = mark(scene.first)
    one, two = talking(scene), talking(scene, "b")
    known = {"generation": seen.generation, "watermark": seen.until}
    scene.do(end(one, said(one, summary=NewSummary("four", 9, loaded=4), **known)))
    scene.do(end(two, said(two, summary=NewSummary("two", 9, loaded=2), **known)))
    assert [row[1] for row in scene.first.read(SUMMARY_ROWS)] == ["four"]
    assert mark(scene.first).after == 4


def test_rows_under_a_watermark_are_read_again_whatever_came_since(scene: Scene) -> None:
    run = talking(scene)
    scene.do(end(run, said(run)))
    seen = mark(scene.first)
    before = loaded(scene, seen)
    later = talking(scene)
    known = {"generation": seen.generation, "watermark": seen.until}
    scene.do(end(later, said(later, summary=NewSummary("short", 2, loaded=2), **known)))
    assert loaded(scene, seen) == before == [f"{run.id} ask", f"{run.id} answer"]


# -- deletion


def test_what_a_live_run_has_loaded_is_removed_only_after_its_end(scene: Scene) -> None:
    run = talking(scene)
    scene.do(end(run, said(run)))
    reader = talking(scene)
    seen = mark(scene.first)

    assert scene.do(forget(KEY, "new"))
    assert scene.do(remove_forgotten(KEY)) == []
    assert loaded(scene, seen) == [f"{run.id} ask", f"{run.id} answer"]
    assert mark(scene.first).is_empty

    known = {"generation": seen.generation, "watermark": seen.until}
    scene.do(end(reader, said(reader, summary=NewSummary("of what was deleted", 9, loaded=2), **known)))
    assert scene.first.read(SUMMARY_ROWS) == []
    assert [tuple(row) for row in scene.first.read(READ_FORGOTTEN, limit=9)] == [KEY]
    assert scene.do(remove_forgotten(KEY))
    assert stored(scene) == [(3, f"{reader.id} ask"), (4, f"{reader.id} answer")]
    assert scene.first.read(READ_FORGOTTEN, limit=9) == []


def test_a_deletion_waits_for_an_end_and_takes_what_it_left(scene: Scene, together: Together) -> None:
    run, later = talking(scene), talking(scene, "b")
    scene.do(end(run, said(run)))
    left, right = scene.hand(), scene.hand()

    left.begin(end(later, said(later)))
    done = together.commit_behind(right, forget(KEY, "new"))
    left.end()

    assert result(done) == [(4,)]
    assert scene.do(remove_forgotten(KEY))
    assert stored(scene) == []


def test_an_end_waits_for_a_deletion_and_its_messages_stay(scene: Scene, together: Together) -> None:
    run, later = talking(scene), talking(scene, "b")
    scene.do(end(run, said(run)))
    left, right = scene.hand(), scene.hand()

    left.begin(forget(KEY, "new"))
    done = together.commit_behind(right, end(later, said(later)))
    left.end()

    assert result(done)
    assert loaded(scene, mark(scene.first)) == [f"{later.id} ask", f"{later.id} answer"]


def test_a_memory_is_replaced_once_however_often_it_is_asked(scene: Scene) -> None:
    run = talking(scene)
    scene.do(end(run, said(run)))
    unit = replace_memory(
        KEY, "new", [NewMessage('"one"', 2), NewMessage('"two"', 2)], summary=NewMessage("before", 3)
    )
    for _ in range(2):
        scene.first.commit(unit)
    assert scene.do(remove_forgotten(KEY))
    assert stored(scene) == [(3, "one"), (4, "two")]
    assert loaded(scene, mark(scene.first)) == ["before", "one", "two"]


@pytest.mark.parametrize("live", [False, True], ids=["unused", "in use"])
def test_a_session_is_kept_while_a_run_of_it_is_live(scene: Scene, live: bool) -> None:
    run = talking(scene)
    scene.do(end(run, said(run)))
    if live:
        scene.queued(session_id="talk")
    assert bool(scene.do(forget_old(KEY, "new", days=-1.0))) is not live
    assert bool(scene.do(remove_forgotten(KEY))) is not live
    assert bool(scene.do(remove_empty(KEY, days=-1.0))) is not live
    assert len(stored(scene)) == (2 if live else 0)
