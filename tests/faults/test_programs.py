"""Random programs: the same for a seed, made smaller as they should, and held to what they promise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
from crew import Strike
from fuzz.judges import judged
from fuzz.programs import (
    FOREVER,
    AnyNode,
    Batch,
    Child,
    Draw,
    Fail,
    Limited,
    Once,
    Parallel,
    Program,
    Progress,
    Raise,
    Spawn,
    Step,
    Talk,
    everything,
)
from fuzz.promises import ProgramRun
from fuzz.reference import reference_of
from fuzz.scenario import KEPT, programs_in
from fuzz.shrinking import shrunk, smaller, weight
from fuzz.strategies import MAX_NODES, draw_programs
from ledger import Entry
from oracles import Evidence
from orders import Beside, Series
from week_model import Call

from polos.events import StreamEvent

ROOT = "the-root"


def program(*nodes: AnyNode) -> Program:
    return Program(nodes=nodes)


# -- drawn


def test_a_seed_names_its_programs() -> None:
    drawn = draw_programs(30, 7)
    assert drawn == draw_programs(30, 7)
    assert len(set(drawn)) == 30
    assert drawn != draw_programs(30, 8)
    assert all(1 <= each.size <= MAX_NODES for each in drawn)


def test_every_kind_of_node_is_drawn() -> None:
    kinds = {node.kind for each in draw_programs(150, 1) for _, node in everything(each.nodes)}
    assert kinds == {
        *("step", "once", "timer", "draw", "patch", "progress", "ask", "reply", "hear", "raise", "fail"),
        *("tool", "talk", "child", "spawn", "batch", "parallel", "limited", "cancelled", "overdue"),
    }


def test_a_program_is_read_back_from_its_text() -> None:
    for each in draw_programs(20, 3):
        assert Program.model_validate_json(each.model_dump_json()) == each


def test_a_step_fails_no_more_often_than_it_is_tried_again() -> None:
    """Else what it comes to would depend on tries that are lost with their workers."""
    with pytest.raises(ValueError, match="fails that often at most"):
        Step(fails=2, retries=1)


# -- what they must come to


@pytest.mark.parametrize(
    ("nodes", "output", "order"),
    [
        ((Step(), Step(sync=True)), ["0", "1"], Series(["0", Series(["1", Series()])])),
        ((Step(fails=FOREVER),), ["failed"], Series(["0", Series()])),
        ((Child(nodes=(Step(), Fail())),), ["failed"], None),
        ((Raise(times=2), Draw()), ["at last", True], None),
        ((Batch(children=((Step(),), (Fail(),))),), [[["0.0.0"], "failed"]], None),
        ((Parallel(branches=((Step(),), (Step(),))),), [[["0.0.0"], ["0.1.0"]]], None),
        ((Spawn(nodes=(Step(),)), Step()), ["spawned", "1", ["0.0"]], None),
        ((Limited(),), [["0.0", "0.1"]], None),
        ((Step(), Fail()), None, None),
    ],
)
def test_what_a_program_comes_to(nodes: tuple[AnyNode, ...], output: Any, order: Any) -> None:
    reference = reference_of(program(*nodes))
    assert reference.output == output
    assert order is None or reference.order == order


def test_what_is_spawned_in_a_branch_is_beside_the_other_branches() -> None:
    spawning = Parallel(branches=((Spawn(nodes=(Step(),)),), (Step(),)))
    order = reference_of(program(Step(), spawning, Step())).order
    assert isinstance(order, Series)
    assert order[0] == "0"
    assert isinstance(order[1], Beside)
    assert order[1][0] == Series(["1.0.0.0", Series()])


def test_what_a_failed_run_has_spawned_is_beside_what_follows() -> None:
    failing = Child(nodes=(Spawn(nodes=(Step(),)), Fail()))
    order = reference_of(program(failing, Step())).order
    assert isinstance(order, Beside)
    assert order[1] == Series(["0.0.0", Series()])


# -- made smaller


def test_a_program_is_made_as_small_as_what_misses() -> None:
    """Here all that misses is a talk in whatever stands around it."""
    drawn = draw_programs(60, 5)
    large = max((each for each in drawn if _has_talk(each)), key=weight)
    asked: list[int] = []

    async def missing(programs: Sequence[Program]) -> list[Program]:
        asked.append(len(programs))
        return [each for each in programs if _has_talk(each)]

    small = asyncio.run(shrunk(large, missing, rounds=60))
    assert large.size > 5
    assert small == program(Talk())
    assert sum(asked) < 60 * large.size


def _has_talk(tried: Program) -> bool:
    return any(isinstance(node, Talk) for _, node in everything(tried.nodes))


def test_what_is_smaller_is_a_program_of_less_weight() -> None:
    for each in draw_programs(20, 9):
        for other in smaller(each):
            assert weight(other) < weight(each)
            assert other.nodes


# -- planted misses


@dataclass
class Made:
    """What a faultless run of a program leaves: its rows, effects, calls and events."""

    source: Program
    runs: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    ledger: list[Entry] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    events: list[StreamEvent] = field(default_factory=list)
    published: list[dict[str, Any]] = field(default_factory=list)
    cancelled_after: float | None = None

    def misses(self) -> set[str]:
        promise = ProgramRun(self.source, reference_of(self.source), self.cancelled_after)
        evidence = Evidence(
            accepted={ROOT: promise},
            references={},
            runs=self.runs,
            steps=self.steps,
            ledger=self.ledger,
            calls=self.calls,
            strikes=self.strikes,
            messages=self.messages,
            events=self.published,
        )
        return {miss.oracle for miss in judged(evidence, {ROOT: self.events})}


def made() -> Made:
    """A run of two steps, one that happens once, an event for readers, and a talk that is streamed."""
    source = program(Step(), Once(), Progress(), Talk(streamed=True))
    reference = reference_of(source)
    given = Made(source)
    given.runs = [
        _run(ROOT, "workflow", "fuzz", {"path": "", "nodes": []}, reference.output),
        _run("talk", "agent", "fuzz-talker", {"input": _script()}, {"result": reference.output[3]}),
    ]
    given.steps = [_step("0", 1), _step("1", 2), _step("2", 3, "event"), _step("3", 4, "child")]
    given.steps += [_step("$turn:1", 1, "turn", run="talk")]
    given.ledger = [*_did("0", 10.0), *_did("1", 12.0)]
    given.calls = [Call("talk:$turn:1", "w1", 14.0, 200)]
    given.messages = [
        {"run_id": "talk", "number": number, "item": json.dumps({"role": role, "content": "x"})}
        for number, role in enumerate(("user", "assistant"), 1)
    ]
    given.events = list(_events(reference.output[3]))
    return given


def _script() -> str:
    return json.dumps({"path": "3", "rounds": 0, "refused": False})


def _run(run_id: str, kind: str, name: str, given: Any, output: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("owner", "ring_at", "claimed_at", "error"))
    times = {"created_at": 1.0, "started_at": 2.0, "finished_at": 50.0 if run_id == ROOT else 40.0}
    texts = {"input": json.dumps(given), "output": json.dumps(output)}
    parent = None if run_id == ROOT else ROOT
    fixed = {"id": run_id, "root_id": ROOT, "parent_id": parent, "kind": kind, "name": name}
    return {**fixed, "status": "completed", "ended_event": 9, **nothing, **times, **texts}


def _step(name: str, seq: int, kind: str = "run", *, run: str = ROOT) -> dict[str, Any]:
    fixed = {"run_id": run, "name": name, "kind": kind, "status": "completed", "seq": seq, "ring_at": None}
    return {**fixed, "tries": 1, "finished_at": 9.5 + 2 * seq if kind == "run" else 30.0}


def _did(name: str, at: float, worker: str = "w1") -> list[Entry]:
    return [Entry(ROOT, name, phase, 1, at + more, worker) for phase, more in (("start", 0.0), ("end", 1.0))]


def _events(text: str) -> Iterator[StreamEvent]:
    numbers = count(1)

    def event(kind: str, run: str = ROOT, **data: Any) -> StreamEvent:
        number = next(numbers)
        where = {"_metadata": {"execution_id": run}}
        return StreamEvent(
            id=str(number), sequence_id=number, topic="t", event_type=kind, data={**data, **where}
        )

    yield event("workflow_start")
    yield event("progress", path="2")
    yield event("stream_start", "talk", step=1)
    yield event("text_delta", "talk", step=1, content="half of")
    yield event("stream_reset", "talk", step=1)
    yield from (event("text_delta", "talk", step=1, content=part) for part in (text[:5], text[5:]))
    yield event("agent_finish", "talk")
    yield event("workflow_finish")


def test_a_run_without_a_fault_misses_nothing() -> None:
    assert made().misses() == set()


def test_a_step_that_happens_once_may_be_interrupted_by_a_strike() -> None:
    given = _interrupted(made())
    given.strikes = [Strike("w1", "kill9", 12.5)]
    assert given.misses() == set()


@pytest.mark.parametrize(("number", "is_missed"), [(8, True), (10, False)])
def test_a_reader_has_gone_when_the_root_has_ended(number: int, is_missed: bool) -> None:
    given = made()
    told = given.events.pop(1)
    row = {"topic": f"workflow/fuzz/{ROOT}", "type": "progress", "number": number}
    given.published = [{**row, "data": json.dumps({"path": told.data["path"]})}]
    assert ("O6" in given.misses()) == is_missed


def _interrupted(given: Made) -> Made:
    given.steps[1]["status"] = "failed"
    given.runs[0]["output"] = given.runs[0]["output"].replace('"1"', '"interrupted"')
    return given


PLANTED: dict[str, tuple[str, Callable[[Made], object]]] = {
    "a lost run": ("O1", lambda m: m.runs.clear()),
    "a run that goes on": ("O1", lambda m: m.runs[1].update(status="running")),
    "another output": ("O2", lambda m: m.runs[0].update(output='["0", "1", "told"]')),
    "an effect that runs again after its commit": ("O3", lambda m: m.ledger.extend(_did("0", 11.9, "w2"))),
    "an effect that runs twice": (
        "O3",
        lambda m: m.ledger.insert(1, Entry(ROOT, "0", "start", 2, 10.2, "w2")),
    ),
    "an effect nobody asked for": ("O3", lambda m: m.ledger.extend(_did("7", 11.9))),
    "an effect too early": ("O4", lambda m: m.ledger.insert(0, Entry(ROOT, "1", "start", 1, 9.0, "w1"))),
    "a lease that is left": ("O5", lambda m: m.runs[1].update(owner="w1")),
    "a double charge": ("O7", lambda m: m.calls.append(Call("talk:$turn:1", "w1", 15.0, 200))),
    "a charge that was never made": ("O7", lambda m: m.calls.clear()),
    "twice what may happen once": (
        "F3",
        lambda m: m.ledger.insert(3, Entry(ROOT, "1", "start", 2, 12.1, "w1")),
    ),
    "an interruption by nobody": ("F3", _interrupted),
    "an event for readers that is lost": ("O6", lambda m: m.events.pop(1)),
    "an event for readers that comes twice": (
        "O6",
        lambda m: m.events.insert(2, m.events[1].model_copy(update={"id": "1b"})),
    ),
    "a word that is lost": ("O6", lambda m: m.events.pop(5)),
    "a word that was taken back": ("O6", lambda m: m.events.pop(4)),
    "a reader who is told no end": ("O6", lambda m: m.events.pop()),
    "the end of a run nobody is told of": ("O6", lambda m: m.events.pop(7)),
}


@pytest.mark.parametrize(("oracle", "plant"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_miss_is_found(oracle: str, plant: Callable[[Made], object]) -> None:
    given = made()
    plant(given)
    assert oracle in given.misses()


def test_nothing_begins_long_after_a_cancel() -> None:
    given = made()
    given.cancelled_after = 1.0
    for run in given.runs:
        run.update(status="cancelled", finished_at=13.0)
    given.events[-1] = given.events[-1].model_copy(update={"event_type": "workflow_cancel"})
    assert given.misses() == set()
    given.ledger += _did("3", 30.0)
    assert given.misses() == {"F25"}


def test_a_child_of_a_cancelled_run_has_ended() -> None:
    given = made()
    given.cancelled_after = 1.0
    given.runs[0].update(status="cancelled", finished_at=60.0)
    given.runs[1].update(status="waiting", finished_at=None)
    assert given.misses() == {"F25"}


def test_a_limit_that_is_passed_is_found() -> None:
    source = program(Limited())
    promise = ProgramRun(source, reference_of(source))
    roots = [f"root-{number}" for number in range(200)]
    lane = promise.lane_of(roots[0], "0.0")
    chosen = [root for root in roots if promise.lane_of(root, "0.0") == lane][:3]
    for going, is_found in ((chosen, True), (chosen[1:], False)):
        ledger = [replace(entry, run=root) for root in going for entry in _did("0.0", 10.0)]
        evidence = Evidence(dict.fromkeys(going, promise), {}, [], [], ledger, [], [])
        assert ("F23" in {miss.oracle for miss in judged(evidence, {})}) == is_found


# -- those that once missed


def test_programs_that_once_missed_are_kept() -> None:
    """The scenario plays them each time, in its short form too."""
    assert len(programs_in(KEPT)) == len(list(KEPT.glob("*.json"))) > 0
