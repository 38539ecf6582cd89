"""`polos runs retry`, `fork`, `stuck` and `--failed`, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from typing import Any

import pytest
from written import Written, polos

from polos.journal.runs import READ_RUN, run_record
from polos.journal.states import RunStatus, StepStatus
from polos.journal.steps import READ_STEPS, Outcome, record_step, step_from
from polos.journal.stuck import Found, count_finding


def run_of(journal: Written, run_id: str) -> dict[str, Any]:
    return run_record(journal._connection.read(READ_RUN, {"run": run_id})[0])


def outputs(journal: Written, run_id: str) -> dict[str, Any]:
    steps = map(step_from, journal._connection.read(READ_STEPS, {"run": run_id}))
    return {step.name: step.output for step in steps}


@pytest.fixture
def source(journal: Written) -> str:
    """A run with three recorded steps."""
    claim = journal.claimed(journal.run(input="1"))
    for position, name in enumerate(("a", "b", "c")):
        outcome = Outcome(StepStatus.COMPLETED, output=f'"{name}"')
        record = record_step(
            claim.id, claim.attempt, name, "run", outcome, position=position, tries=1, worker="w1"
        )
        assert journal.do(record)
    return claim.id


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.CANCELLED])
def test_retry_queues_a_run_again_that_ended_badly(journal: Written, status: RunStatus) -> None:
    run_id = journal.ended(journal.run(), status, error="broken")
    assert polos("runs", "retry", run_id[:8]).output == f"Run {run_id} is queued again.\n"
    run = run_of(journal, run_id)
    assert (run["status"], run["error"], run["finished_at"], run["ended_event"]) == (
        "queued",
        None,
        None,
        None,
    )
    assert run["ring_at"] is not None


def test_retry_of_what_cannot_be_retried_says_why(journal: Written) -> None:
    completed = journal.ended(journal.run())
    parent = journal.claimed(journal.run())
    child = journal.child(parent)
    for run_id, reason in ((completed, "is completed; only failed"), (child, f"tree, {parent.id}")):
        answer = polos("runs", "retry", run_id)
        assert answer.exit_code == 2
        assert reason in answer.output


def test_fork_prints_the_id_of_a_run_with_the_steps_before(journal: Written, source: str) -> None:
    answer = polos("runs", "fork", source, "--from-step", "c", "--patch", 'b={"x": 1}', "--input", "2")
    assert answer.exit_code == 0, answer.output
    fork = run_of(journal, answer.output.strip())
    assert (fork["status"], fork["forked_from"], fork["input"], fork["attempt"]) == ("queued", source, "2", 1)
    assert outputs(journal, fork["id"]) == {"a": '"a"', "b": '{"x":1}'}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--from-step", "z"], "has no step 'z'"),
        (["--patch", "b"], "is not KEY=JSON"),
        (["--patch", "b=no"], "is no JSON"),
        (["--input", "{"], "is no JSON"),
        (["--from-step", "b", "--patch", "c=1"], "cannot be patched"),
    ],
)
def test_fork_says_what_is_wrong(source: str, arguments: list[str], problem: str) -> None:
    answer = polos("runs", "fork", source, *arguments)
    assert answer.exit_code == 2
    assert problem in answer.output


def test_failed_lists_what_could_be_retried(journal: Written) -> None:
    bad = {journal.ended(journal.run(), status) for status in (RunStatus.FAILED, RunStatus.CANCELLED)}
    journal.ended(journal.run())
    assert {run["id"] for run in json.loads(polos("runs", "--failed", "--json").output)} == bad


def test_stuck_tells_what_was_found(journal: Written) -> None:
    assert polos("runs", "stuck").output == "Nothing was found that nothing would have moved.\n"
    for _ in range(2):
        journal.do(count_finding("queued run that nobody rings", Found("run-1")))
    assert polos("runs", "stuck").output.startswith("2 times: queued run that nobody rings, the last ")
    [found] = json.loads(polos("runs", "stuck", "--json").output)
    assert (found["count"], found["run_id"]) == (2, "run-1")
