"""A worker is killed with SIGKILL at every fault point: each run ends as if nothing had happened."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from cases import EFFECTS, Case
from model import TOKENS
from rounds import Rounds
from stage import RECOVERY_SECONDS, Report

WAIT_SECONDS = 280.0  # for a report: cases are played a few at a time
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def report(rounds: Rounds, database_name: str, case: Case) -> Report:
    return rounds.reports[database_name, case].result(WAIT_SECONDS)


@pytest.fixture
def reference(rounds: Rounds, report: Report, database_name: str, case: Case) -> Report:
    """What the same kind of run came to without a fault."""
    return rounds.stages[database_name].references[case.kind]


def test_a_run_survives_the_death_of_its_worker(report: Report, reference: Report, case: Case) -> None:
    assert report.struck, f"the fault did not strike\n{report.logs}"
    assert report.ended, f"the run did not end\n{report.logs}"
    assert report.recovery_seconds < RECOVERY_SECONDS
    assert report.run["status"] == "completed", report.run["error"]

    _nothing_is_left_behind(report)
    _each_step_is_recorded_once(report, reference)
    _recorded_effects_did_not_run_again(report, case)
    _recorded_calls_were_not_made_again(report, reference, case)
    _the_session_has_what_was_said_once(report)


def _nothing_is_left_behind(report: Report) -> None:
    assert {run["status"] for run in report.tree} == {"completed"}
    assert not [run["id"] for run in report.tree if run["owner"] or run["ring_at"]]
    assert not [step["name"] for step in report.steps if step["status"] != "completed" or step["ring_at"]]
    assert report.buried, f"the dead worker is still listed\n{report.logs}"


def _each_step_is_recorded_once(report: Report, reference: Report) -> None:
    """Same steps, same values, same output; agents name their run in the output."""
    assert _shape(report) == _shape(reference)
    for run in report.tree:
        seqs = [step["seq"] for step in report.steps if step["run_id"] == run["id"]]
        assert None not in seqs
        assert len(set(seqs)) == len(seqs)


def _shape(report: Report) -> list[tuple[object, ...]]:
    output = _without_usage(report.run["output"]).replace(report.run["id"], "the run")
    steps = [(step["name"], step["kind"], step["status"], _plain(step["output"])) for step in report.steps]
    kinds = [(run["kind"], run["status"]) for run in report.tree]
    return [("output", _plain(output)), *sorted(steps), *sorted(kinds)]


def _without_usage(output: str) -> str:
    """Return a run's output without what its model calls used: calls that are made again count again."""
    return re.sub(r'"usage":\{[^}]*\}', "", output)


def _plain(text: str | None) -> str | None:
    """Return a value without the names of the case and its session in it."""
    plain = text and re.sub(r'"(agent-)?(tool|turn)-[a-z0-9-]+"', '"named"', text)
    return plain and re.sub(r'"session_id":"[^"]+"', '"session_id":"its own"', plain)


def _recorded_effects_did_not_run_again(report: Report, case: Case) -> None:
    began = Counter(entry.name for entry in report.ledger if entry.phase == "start")
    expected = dict.fromkeys(EFFECTS[case.kind], 1)
    if case.twice is not None:
        expected[case.twice] = 2
    assert began == expected
    firsts = list(dict.fromkeys(entry.name for entry in report.ledger))
    assert firsts == EFFECTS[case.kind]  # in the order of the code


def _recorded_calls_were_not_made_again(report: Report, reference: Report, case: Case) -> None:
    expected = dict(reference.calls)
    if case.calls_again is not None:
        expected[f"$turn:{case.calls_again}"] += 1
    assert report.calls == expected
    _every_attempt_is_counted_once(report)


def _every_attempt_is_counted_once(report: Report) -> None:
    """An attempt whose worker died may have been billed: its input is estimated."""
    turns = [step for step in report.steps if step["kind"] == "turn"]
    assert all(turn["calls"] == turn["tries"] and not turn["uncounted_calls"] for turn in turns)
    lost = [turn for turn in turns if turn["tries"] > 1]
    known = [turn["input_tokens"] + turn["output_tokens"] for turn in turns if turn not in lost]
    assert known == [TOKENS] * len(known)
    assert all(turn["input_tokens"] + turn["output_tokens"] > TOKENS for turn in lost)
    run = report.run
    assert run["calls"] == sum(turn["calls"] for turn in turns)
    assert run["total_tokens"] == sum(turn["input_tokens"] + turn["output_tokens"] for turn in turns)
    if turns:
        used = json.loads(run["output"])["usage"]
        assert (used["total_tokens"], used["cost"]) == (run["total_tokens"], pytest.approx(run["cost"]))


def _the_session_has_what_was_said_once(report: Report) -> None:
    """One block of an agent's run, whole, without a call that has no output."""
    agents = [run["id"] for run in report.tree if run["kind"] == "agent"]
    shape = [item.get("type") or item["role"] for _, _, item in report.messages]
    assert shape == ["user", "function_call", "function_call_output", "assistant"] * len(agents)
    assert [run_id for run_id, _, _ in report.messages] == agents * 4
    assert [number for _, number, _ in report.messages] == list(range(1, len(report.messages) + 1))


def test_the_survivor_lives_and_had_no_trouble(rounds: Rounds) -> None:
    for report in rounds.reports.values():
        report.exception(WAIT_SECONDS)
    for stage in rounds.stages.values():
        log = stage.survivor.log.read_text()
        assert stage.survivor.name
        assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]
