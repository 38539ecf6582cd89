"""Replaying a journal against other code: it says what would become of the run, and does nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fleet import Fleet, until

from polos import StepExecutionError, WorkflowContext, workflow
from polos.engine import replaying
from polos.engine.replaying import Replay, Verdict
from polos.settings import Settings
from polos.worker import replays
from polos.worker.replays import replay_runs

pytestmark = pytest.mark.timeout(120)
program: list[str] = []
calls: list[str] = []


@workflow(id="replayed")
async def replayed(ctx: WorkflowContext) -> Any:
    done: list[Any] = []
    for name in list(program):
        if name == "wait":
            await ctx.step.wait_for("wait", hours=1)
        elif name == "sleep":
            await asyncio.sleep(30)
        elif name == "raise":
            raise StepExecutionError("as the code says")
        else:
            done.append(await ctx.step.run(name, lambda name=name: calls.append(name) or name))
    return done


@pytest.fixture(autouse=True)
def _fresh() -> None:
    program[:] = ["a", "b", "wait", "c"]
    calls.clear()


async def waiting(fleet: Fleet) -> str:
    """Return a run that has recorded a and b, and waits."""
    fleet.hire()
    run_id = fleet.create("replayed")
    fleet.sweep()
    await until(lambda: fleet.record(run_id)["status"] == "waiting")
    return run_id


async def ended(fleet: Fleet, *names: str) -> str:
    program[:] = names
    fleet.hire()
    run_id = fleet.create("replayed")
    fleet.sweep()
    await fleet.until_ended(run_id)
    return run_id


async def replay_of(fleet: Fleet, run_id: str) -> Replay:
    """Replay it, and see that nothing was done."""
    before, done = fleet.record(run_id), list(calls)
    [found] = await replay_runs(fleet.database, Settings(), roots=[run_id])
    assert (fleet.record(run_id), calls) == (before, done)
    return found


@pytest.mark.parametrize(
    ("names", "verdict", "reason"),
    [
        (["a", "b", "wait", "c"], Verdict.GOES_ON, "waits for ['wait']"),
        (["a", "b", "wait", "c", "d"], Verdict.GOES_ON, "waits for ['wait']"),
        (["a", "new", "b", "wait", "c"], Verdict.DEVIATES, "'new'"),
        (["a", "other", "wait", "c"], Verdict.DEVIATES, "holds steps that the code no longer asks for: ['b'"),
        (["b", "a", "wait"], Verdict.DEVIATES, "it now asks for ['b']"),
        (["a", "b"], Verdict.DEVIATES, "ended without asking for steps the journal holds: ['wait']"),
        (["a", "sleep", "b"], Verdict.DEVIATES, "awaits something outside of its steps"),
    ],
)
async def test_what_would_become_of_a_live_run(
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    verdict: Verdict,
    reason: str,
) -> None:
    monkeypatch.setattr(replaying, "PATIENCE_SECONDS", 0.1)
    run_id = await waiting(fleet)
    program[:] = names
    found = await replay_of(fleet, run_id)
    assert (found.verdict, found.status) == (verdict, "waiting")
    assert reason in found.reason


@pytest.mark.parametrize(
    ("names", "verdict", "reason"),
    [
        (["a", "b"], Verdict.SAME, ""),
        (["a"], Verdict.DEVIATES, "['b']"),
        (["a", "b", "raise"], Verdict.OTHER_END, "the code fails: as the code says; the run's: returns"),
        (
            ["a", "b", "c"],
            Verdict.OTHER_END,
            "the run completed here; the code begins ['c']",
        ),
    ],
)
async def test_what_differs_from_a_run_that_has_ended(
    fleet: Fleet, names: list[str], verdict: Verdict, reason: str
) -> None:
    run_id = await ended(fleet, "a", "b")
    program[:] = names
    found = await replay_of(fleet, run_id)
    assert (found.verdict, found.status) == (verdict, "completed")
    assert reason in found.reason


async def test_a_definition_that_is_not_here_is_named(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await ended(fleet, "a")
    monkeypatch.setattr(replays, "resolve", lambda *_: None)
    found = await replay_of(fleet, run_id)
    assert found.verdict is Verdict.DEVIATES
    assert "No workflow named 'replayed' is defined here; import its module" in found.reason


async def test_journals_are_not_written_whatever_the_code_asks_for(fleet: Fleet) -> None:
    """A run that failed halfway: its step is cut off, and stays so."""
    run_id = await ended(fleet, "a", "raise")
    program[:] = ["a", "wait", "b"]
    found = await replay_of(fleet, run_id)
    assert (found.verdict, found.reason) == (
        Verdict.OTHER_END,
        "the run failed here; the code begins ['wait']",
    )
