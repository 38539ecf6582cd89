"""What an attempt of a turn used is counted once, whoever ends it and whatever becomes of its worker."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hands import Together, result
from killed_remover import DAYS
from scenes import DONE, RING_AGAIN, Scene, finishing, turn_claim
from sqlalchemy import text

from polos.journal.children import cancel_run
from polos.journal.ends import Ending, finish_run
from polos.journal.recovery import put_back_turns
from polos.journal.retention import remove_tree
from polos.journal.runs import Claim
from polos.journal.spending import Spent, count_late
from polos.journal.statements import Part, Statement, Unit
from polos.journal.states import RunStatus, StepStatus
from polos.journal.steps import Outcome
from polos.journal.turns import TurnClaim, complete_turn, hand_back_turn, retry_turn
from polos.journal.usage import READ_USED_BELOW, READ_USED_IN_SESSION, UsageQuery, Used, read_usage

TURN = "$turn:1"
ONE = Spent("writer", "openai/gpt-4o", 1, 0, input_tokens=10, output_tokens=5, cached_tokens=4, cost=0.25)


@pytest.fixture
def run(scene: Scene) -> Claim:
    return scene.running("a", kind="agent", name="writer", session_id="s-1")


def completion(turn: TurnClaim, spent: Spent = ONE, outcome: Outcome = DONE, worker: str = "b") -> Unit:
    return complete_turn(turn, worker, outcome, root_id=turn.run_id, ring_again=RING_AGAIN, spent=spent)


def retry(turn: TurnClaim, spent: Spent = ONE) -> Unit:
    return retry_turn(turn, "b", error="x", failures="[]", delay=0.0, spent=spent)


def again(scene: Scene, run: Claim, worker: str = "b") -> TurnClaim:
    [row] = scene.do(turn_claim(run.id, TURN, worker))
    return TurnClaim(*row)


def sums(scene: Scene, run: Claim) -> tuple[Any, ...]:
    [found] = used(scene, run_id=run.id)
    return tuple(found[name] for name in ("calls", "input_tokens", "output_tokens", "cost"))


def used(scene: Scene, **wanted: Any) -> list[dict[str, Any]]:
    journal = scene.database.connect()
    try:
        return read_usage(journal, UsageQuery("default", **wanted))
    finally:
        journal.close()


def test_every_attempt_of_a_turn_is_in_its_sums_and_those_of_its_run(scene: Scene, run: Claim) -> None:
    first = scene.turn(run, TURN, worker="b")
    assert scene.do(retry(first))
    second = again(scene, run)
    assert second.interrupted_calls == 0
    assert (second.input_tokens, second.cost) == (10, 0.25)
    assert scene.do(completion(second))

    step = scene.steps(run.id)[TURN]
    assert (step.input_tokens, step.output_tokens, step.cached_tokens, step.cost) == (20, 10, 8, 0.5)
    assert scene.do(finishing(run))
    ended = scene.run(run.id)
    assert (ended["input_tokens"], ended["output_tokens"], ended["total_tokens"]) == (20, 10, 30)
    assert (ended["cached_tokens"], ended["calls"], ended["unpriced_calls"], ended["cost"]) == (8, 2, 0, 0.5)


def test_a_call_that_was_interrupted_is_counted_by_the_next_claim(scene: Scene, run: Claim) -> None:
    lost = scene.turn(run, TURN, worker="b")
    scene.lose("b")
    stale = again(scene, run, "c")
    scene.lose("c")
    last = again(scene, run, "d")
    assert last.interrupted_calls == 2

    spent = ONE + replace(ONE, calls=2, output_tokens=0, cost=0.2)
    assert scene.do(completion(last, spent, worker="d"))
    for late, worker in ((lost, "b"), (stale, "c")):  # they come back with answers nobody waits for
        assert scene.do(completion(late, worker=worker)) == []
        assert scene.do(count_late(run.id, TURN, late.attempt, ONE)) == []
    assert sums(scene, run) == (3, 20, 5, pytest.approx(0.45))


def test_a_takeover_and_the_completion_it_races_count_each_attempt_once(
    scene: Scene, run: Claim, together: Together
) -> None:
    turn = scene.turn(run, TURN, worker="b")
    sweeper, executor = scene.hand(), scene.hand()
    sweeper.begin(put_back_turns("b"), turn_claim(run.id, TURN, "c"))
    late = together.commit_behind(executor, completion(turn))
    sweeper.end()
    assert result(late) == []
    assert scene.do(count_late(run.id, TURN, turn.attempt, ONE)) == []  # the one who claimed it does that

    [taken] = [step for step in scene.steps(run.id).values() if step.name == TURN]
    assert taken.input_tokens == 0
    fresh = TurnClaim(run.id, TURN, 2, 2, 1, 0, None, uncounted_calls=2)
    assert scene.do(completion(fresh, ONE + ONE, worker="c"))
    assert sums(scene, run) == (2, 20, 10, 0.5)


def test_a_turn_put_back_but_not_claimed_is_counted_by_who_made_the_call(scene: Scene, run: Claim) -> None:
    turn = scene.turn(run, TURN, worker="b")
    scene.lose("b")
    assert scene.do(completion(turn)) == []
    assert scene.do(count_late(run.id, TURN, turn.attempt, ONE))
    assert scene.do(count_late(run.id, TURN, turn.attempt, ONE)) == []

    assert again(scene, run, "c").interrupted_calls == 0
    assert sums(scene, run) == (1, 10, 5, 0.25)


def test_a_turn_handed_back_made_no_call(scene: Scene, run: Claim) -> None:
    turn = scene.turn(run, TURN, worker="b")
    assert scene.do(hand_back_turn(turn, "b", ring_again=RING_AGAIN))
    assert again(scene, run).interrupted_calls == 0


def test_a_call_that_was_cancelled_with_its_run_is_in_the_sums_of_the_run(scene: Scene, run: Claim) -> None:
    turn = scene.turn(run, TURN, worker="b")
    scene.do(
        cancel_run(
            run.id,
            root_id=run.id,
            parent_id=None,
            parent_step=None,
            cancelled_by="user",
            error="x",
            ring_again=RING_AGAIN,
        )
    )
    assert scene.run(run.id)["calls"] == 0
    assert scene.do(completion(turn)) == []
    assert scene.do(count_late(run.id, TURN, turn.attempt, ONE))
    ended = scene.run(run.id)
    assert (ended["status"], ended["calls"], ended["cost"]) == ("cancelled", 1, 0.25)


def test_a_failed_run_has_what_its_turns_used(scene: Scene, run: Claim) -> None:
    turn = scene.turn(run, TURN, worker="b")
    assert scene.do(completion(turn, outcome=Outcome(StepStatus.FAILED, error="x")))
    assert scene.do(finish_run(run.id, run.attempt, Ending(RunStatus.FAILED, error="x"), root_id=run.id))
    assert scene.run(run.id)["total_tokens"] == 15


def test_calls_without_a_price_are_told_apart(scene: Scene, run: Claim) -> None:
    turn = scene.turn(run, TURN, worker="b")
    unknown = replace(ONE, unpriced_calls=1, cost=None)
    assert scene.do(retry(turn, unknown))
    assert scene.steps(run.id)[TURN].cost is None
    assert scene.do(completion(again(scene, run)))

    [found] = used(scene, run_id=run.id)
    assert (found["calls"], found["unpriced_calls"], found["cost"]) == (2, 1, 0.25)


def test_a_limit_counts_the_tree_below_a_run_and_a_session_all_its_runs(scene: Scene, run: Claim) -> None:
    """Of runs that have ended, of those that go on, and of turns that are being tried again."""
    other = scene.running("a", kind="agent", name="writer", session_id="s-1")
    stranger = scene.running("a", kind="agent", name="writer", session_id="s-2")
    child = scene.claimed(scene.child(run, kind="agent", name="helper", session_id="s-1").id, "a")
    for each in (run, other, stranger, child):
        turn = scene.turn(each, TURN, worker="b")
        root = run.id if each is child else each.id
        spent = replace(ONE, unpriced_calls=int(each is other))
        unit = retry(turn) if each is run else turn_completion_of(turn, spent, root)
        assert scene.do(unit)
    assert scene.do(finishing(other))

    below = Used(*scene.first.read(READ_USED_BELOW, run=run.id)[0])
    assert (below.calls, below.total_tokens, below.cost, below.unpriced_calls) == (2, 30, 0.5, 0)
    assert Used(*scene.first.read(READ_USED_BELOW, run=child.id)[0]).calls == 1
    shared = Used(*scene.first.read(READ_USED_IN_SESSION, project="default", session="s-1")[0])
    assert (shared.calls, shared.total_tokens, shared.cost, shared.unpriced_calls) == (3, 45, 0.75, 1)
    assert shared.now >= run.created_at
    assert Used(*scene.first.read(READ_USED_IN_SESSION, project="other", session="s-1")[0]).calls == 0


def turn_completion_of(turn: TurnClaim, spent: Spent, root_id: str) -> Unit:
    return complete_turn(turn, "b", DONE, root_id=root_id, ring_again=RING_AGAIN, spent=spent)


def test_usage_is_summed_up_by_day_agent_model_and_session(scene: Scene, run: Claim) -> None:
    other = scene.running("a", kind="agent", name="helper", session_id="s-2")
    assert scene.do(completion(scene.turn(run, TURN, worker="b")))
    cheap = replace(ONE, agent="helper", model="groq/llama", cost=0.01)
    assert scene.do(completion(scene.turn(other, TURN, worker="b"), cheap))

    assert [row["of"] for row in used(scene)] == [None]
    assert [(row["of"], row["cost"]) for row in used(scene, by="agent")] == [
        ("helper", 0.01),
        ("writer", 0.25),
    ]
    assert [row["of"] for row in used(scene, by="model")] == ["groq/llama", "openai/gpt-4o"]
    assert [row["of"] for row in used(scene, by="session")] == ["s-1", "s-2"]
    [today] = used(scene, by="day")
    assert today["calls"] == 2
    assert len(today["of"]) == len("2025-03-01")
    assert used(scene, agent="helper", by="session")[0]["of"] == "s-2"
    assert used(scene, session="s-1")[0]["cost"] == 0.25
    assert used(scene, model="groq/llama")[0]["calls"] == 1
    assert used(scene, since=run.created_at + 1000.0) == []
    assert used(scene, since_seconds=1000.0)[0]["calls"] == 2
    assert used(scene, until=run.created_at - 1000.0) == []
    journal = scene.database.connect()
    assert read_usage(journal, UsageQuery("other")) == []
    journal.close()


# -- what outlives the turns


def aged(scene: Scene, run: Claim, days: int) -> None:
    """Let everything of a run have happened so many days ago."""
    for table, columns, key in (
        ("run", ("created_at", "finished_at"), "id"),
        ("step", ("finished_at",), "run_id"),
    ):
        moved = ", ".join(f"{name} = {name} - {days * 86_400}" for name in columns)
        statement = Statement(text(f"UPDATE {table} SET {moved} WHERE {key} = :run"))
        scene.do(Unit((Part(statement, {"run": run.id}),), ()))


def ended_days_ago(scene: Scene, days: int, *spent: Spent) -> Claim:
    run = scene.running("a", kind="agent", name="writer", session_id="s-1")
    for number, used in enumerate(spent):
        assert scene.do(completion(scene.turn(run, f"$turn:{number}", worker="b"), used))
    assert scene.do(finishing(run))
    aged(scene, run, days)
    return run


def removal(run: Claim) -> Unit:
    return remove_tree(run.id, project="default", topic="t", days=DAYS)


def test_what_removed_runs_used_is_kept_by_day_agent_and_model(scene: Scene) -> None:
    other = replace(ONE, agent="helper", model="groq/llama", unpriced_calls=1, cost=None)
    runs = [
        ended_days_ago(scene, 9, ONE, other),
        ended_days_ago(scene, 9, ONE),
        ended_days_ago(scene, 5, ONE),
    ]
    asked: list[dict[str, Any]] = [{"by": by} for by in (None, "day", "agent", "model")]
    asked += [{"agent": "writer"}, {"model": "groq/llama"}, {"since_seconds": 7 * 86_400.0}]
    before = [used(scene, **one) for one in asked]
    assert [row["calls"] for row in before[1]] == [3, 1]
    for run in runs:
        assert scene.do(removal(run))
        assert scene.do(removal(run)) == []

    assert [used(scene, **one) for one in asked] == before
    assert used(scene, session="s-1") == []
    [unknown] = used(scene, by="session")
    assert (unknown["of"], unknown["calls"], unknown["cost"]) == (None, 4, 0.75)


@pytest.mark.timeout(120)
def test_a_remover_killed_before_its_commit_has_kept_nothing_twice(scene: Scene) -> None:
    run = ended_days_ago(scene, 9, ONE, ONE)
    url = scene.database.url.render_as_string(hide_password=False)
    program = Path(__file__).with_name("killed_remover.py")
    killed = subprocess.run([sys.executable, str(program), url, run.id], timeout=50, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert used(scene)[0]["calls"] == 2
    assert scene.steps(run.id)

    assert scene.do(removal(run))
    assert not scene.steps(run.id)
    [total] = used(scene)
    assert (total["calls"], total["input_tokens"], total["cost"]) == (2, 20, 0.5)


def test_a_session_is_counted_along_its_index(scene: Scene, run: Claim) -> None:
    """Whatever else the journal holds."""
    text_of = READ_USED_IN_SESSION.compiled(scene.database.dialect)
    bound = text_of.bind({"project": "default", "session": "s-1"})
    if scene.database.is_sqlite:
        with closing(sqlite3.connect(scene.database.path)) as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {text_of.text}", bound).fetchall()
    else:
        with psycopg.connect(scene.database.conninfo) as connection:
            connection.execute("SET enable_seqscan = off")
            plan = connection.execute(f"EXPLAIN {text_of.text}", bound).fetchall()
    lines = [str(row) for row in plan]
    assert sum("run_session" in line for line in lines) == 2
    assert not [line for line in lines if "SCAN run" in line or "Seq Scan" in line]
