"""The oracles see what they are there for: what a strike explains passes, whatever else is wrong does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from crew import Strike
from ledger import Entry
from oracles import Evidence, check
from promises import Wanted
from week_model import Call

ROOT = "the-run"
TURN = f"{ROOT}:$turn:1"


def run(**values: Any) -> dict[str, Any]:
    fixed = {"id": ROOT, "root_id": ROOT, "kind": "workflow", "name": "week-plain", "status": "completed"}
    nothing = dict.fromkeys(("owner", "ring_at", "claimed_at", "error", "input"))
    output = json.dumps([f"{name} of 1" for name in ("first", "second", "third")])
    return {**fixed, **nothing, "output": output, **values}


def step(name: str, seq: int, **values: Any) -> dict[str, Any]:
    times = {"finished_at": seq * 10.0 + 5, "ring_at": None}
    return {"run_id": ROOT, "name": name, "kind": "run", "status": "completed", "seq": seq, **times, **values}


def done(name: str, at: float, worker: str = "w1") -> list[Entry]:
    return [Entry(ROOT, name, phase, 1, at + more, worker) for phase, more in (("start", 0.0), ("end", 1.0))]


def said(number: int, item: dict[str, Any]) -> dict[str, Any]:
    return {"run_id": ROOT, "number": number, "item": json.dumps(item)}


def plain_run() -> Evidence:
    """A plain run whose worker was killed in its second step, which another executed again."""
    evidence = Evidence(
        accepted={ROOT: Wanted("week-plain", 1)},
        references={},
        runs=[run()],
        steps=[step("first", 1), step("second", 2), step("third", 3)],
        ledger=[*done("first", 10), *done("second", 20), *done("second", 23, "w2"), *done("third", 30, "w2")],
        calls=[],
        strikes=[Strike("w1", "kill9", 21.5)],
    )
    evidence.references = {"week-plain": evidence.shape(ROOT)}
    return evidence


def turn_run() -> Evidence:
    """A run of one model call, made again after its worker was killed."""
    evidence = Evidence(
        accepted={ROOT: Wanted("week-patient", 1)},
        references={},
        runs=[run(kind="agent", name="week-patient", output=json.dumps({"result": "Done for 1"}))],
        steps=[step("$turn:1", 1, kind="turn", tries=1)],
        ledger=[],
        calls=[Call(TURN, "w1", 10.0, 200), Call(TURN, "w2", 12.0, 200)],
        strikes=[Strike("w1", "kill9", 11.0)],
        messages=[said(1, {"role": "user", "content": "1"}), said(2, {"role": "assistant", "content": "2"})],
    )
    evidence.references = {"week-patient": evidence.shape(ROOT)}
    return evidence


@pytest.mark.parametrize("evidence", [plain_run(), turn_run()], ids=["steps", "turns"])
def test_what_a_strike_explains_is_no_miss(evidence: Evidence) -> None:
    assert not check(evidence)


TAMPERED: dict[str, tuple[str, Callable[[Evidence], object]]] = {
    "a run that goes on": ("O1", lambda e: e.runs[0].update(status="running")),
    "a run that failed": ("O1", lambda e: e.runs[0].update(status="failed")),
    "a step too few": ("O2", lambda e: e.steps_of[ROOT].pop()),
    "an outcome without a number": ("O2", lambda e: e.steps[0].update(seq=None)),
    "two outcomes with one number": ("O2", lambda e: e.steps[0].update(seq=2)),
    "another output": ("O2", lambda e: e.runs[0].update(output="[]")),
    "a repetition nobody explains": ("O3", lambda e: e.strikes.clear()),
    "a strike that came too late": ("O3", lambda e: e.strikes.__setitem__(0, Strike("w1", "kill9", 24.0))),
    "a repetition of what is recorded": ("O3", lambda e: e.steps[1].update(finished_at=21.9)),
    "an effect that never was": ("O3", lambda e: e.entries.clear()),
    "an order turned round": (
        "O4",
        lambda e: e.entries[ROOT].insert(0, Entry(ROOT, "third", "start", 1, 1.0)),
    ),
    "an owner": ("O5", lambda e: e.runs[0].update(owner="w1")),
    "a promise to ring": ("O5", lambda e: e.steps[0].update(ring_at=1.0)),
}


@pytest.mark.parametrize(("oracle", "tamper"), TAMPERED.values(), ids=TAMPERED.keys())
def test_what_must_not_be_is_a_miss(oracle: str, tamper: Callable[[Evidence], object]) -> None:
    evidence = plain_run()
    tamper(evidence)
    assert oracle in {miss.oracle for miss in check(evidence)}


@pytest.mark.parametrize("is_struck", [True, False])
def test_nobody_waits_for_what_a_stopped_executor_ends_later(is_struck: bool) -> None:
    evidence = plain_run()
    entries = [entry for entry in evidence.entries[ROOT] if (entry.name, entry.at) != ("second", 21.0)]
    entries = [entry for entry in entries if (entry.name, entry.worker) != ("second", "w2")]
    evidence.entries[ROOT] = sorted(
        [*entries, Entry(ROOT, "second", "end", 1, 35.0, "w1")], key=lambda e: e.at
    )
    evidence.strikes[:] = [Strike("w1", "stop", 22.0, until=34.0)] if is_struck else []
    assert ("O4" in {miss.oracle for miss in check(evidence)}) == (not is_struck)


@pytest.mark.parametrize(
    "calls",
    [
        [],
        [Call(TURN, "w2", 10.0, 200), Call(TURN, "w2", 12.0, 200)],
        [Call(TURN, "w1", 10.0, 200), Call(TURN, "w2", 16.0, 200)],
        [Call(TURN, "w1", 10.0, 429), Call(TURN, "w2", 12.0, 200)],
    ],
    ids=["never made", "made twice by the living", "made after its record", "refused and not counted"],
)
def test_a_call_that_must_not_be_is_a_miss(calls: list[Call]) -> None:
    evidence = turn_run()
    evidence.calls_of[TURN] = calls
    assert {miss.oracle for miss in check(evidence)} == {"O7"}


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [said(1, {"role": "user", "content": "1"}), said(3, {"role": "assistant", "content": "2"})],
        [said(1, {"role": "user", "content": "1"}), said(2, {"type": "function_call", "call_id": "a"})],
        [said(number, {"role": "user", "content": "1"}) for number in (1, 2, 1, 2)],
    ],
    ids=["nothing", "a hole", "an orphan call", "twice"],
)
def test_a_block_that_must_not_be_is_a_miss(messages: list[dict[str, Any]]) -> None:
    evidence = turn_run()
    evidence.messages_of[ROOT] = messages
    assert {miss.oracle for miss in check(evidence)} == {"O5"}
