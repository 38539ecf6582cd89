"""What must be true after every fault, whatever the fault was."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from crew import FORGOTTEN, Strike
from ledger import Entry
from orders import Span, disorder, names_in
from promises import Promise
from week_model import Call

from polos.memory.items import unpaired

# What a process sent before it was struck may be read, by a model that has much to do, this much later.
ARRIVES_LATE_SECONDS = 1.0
# What a process was about to do when it was stopped, it does so long after it was let go on: it had asked
# whether it may, right before the deed, and no clock runs in a stopped process.
DONE_WHEN_THAWED_SECONDS = 3.0
Shape = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Miss:
    """A promise that was not kept, for one run or (with no run) for all."""

    oracle: str
    run: str
    text: str

    def __str__(self) -> str:
        return f"{self.oracle} {self.run}: {self.text}"


@dataclass
class Evidence:
    """Everything that was recorded, inside and outside of the engine.

    `accepted` is by run id; `references` has the shapes of programs that were run without faults.
    """

    accepted: Mapping[str, Promise]
    references: Mapping[str, Shape]
    runs: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    ledger: list[Entry]
    calls: list[Call]
    strikes: list[Strike]
    messages: list[dict[str, Any]] = field(default_factory=list)  # of sessions
    events: list[dict[str, Any]] = field(default_factory=list)  # that programs published, and questions
    trees: dict[str, list[dict[str, Any]]] = field(init=False)
    steps_of: dict[str, list[dict[str, Any]]] = field(init=False)
    entries: dict[str, list[Entry]] = field(init=False)
    calls_of: dict[str, list[Call]] = field(init=False)
    messages_of: dict[str, list[dict[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self.trees, self.steps_of = _by(self.runs, "root_id"), _by(self.steps, "run_id")
        self.messages_of = _by(self.messages, "run_id")
        self.entries, self.calls_of = defaultdict(list), defaultdict(list)
        for entry in self.ledger:
            self.entries[entry.run].append(entry)
        for call in self.calls:
            self.calls_of[call.key].append(call)

    @property
    def strikes_of(self) -> dict[str, list[Strike]]:
        found: dict[str, list[Strike]] = defaultdict(list)
        for strike in self.strikes:
            found[strike.worker].append(strike)
        return found

    def tree(self, root: str) -> list[dict[str, Any]]:
        return self.trees.get(root, [])

    def steps_in(self, root: str) -> list[dict[str, Any]]:
        return [step for run in self.tree(root) for step in self.steps_of.get(run["id"], [])]

    def shape(self, root: str) -> Shape:
        """Return which steps and runs a tree has, whatever their ids and values."""
        runs = [("run", run["kind"], run["name"], run["status"]) for run in self.tree(root)]
        names = {run["id"]: run["name"] for run in self.tree(root)}
        steps = [
            ("step", names[step["run_id"]], step["name"], step["kind"], step["status"])
            for step in self.steps_in(root)
        ]
        return tuple(sorted([*runs, *steps]))

    @property
    def calls_repeated(self) -> int:
        """Model calls that were made more often than their answers were recorded."""
        return sum(max(_answered(calls) - 1, 0) for calls in self.calls_of.values())


def check(evidence: Evidence) -> list[Miss]:
    """Return every promise that was not kept."""
    misses: list[Miss] = []
    for root, wanted in evidence.accepted.items():
        found = list(_has_ended(evidence, root))
        if not found:
            for oracle in (
                _recorded_once,
                _executed_once,
                _in_order,
                _nothing_left,
                _remembered_once,
                _paid_once,
            ):
                found += oracle(evidence, root, wanted)
        misses += found
    return [*misses, *_limits_held(evidence)]


def _limits_held(evidence: Evidence) -> Iterator[Miss]:
    """F23: what was seen to begin and to end never went on in more runs at once than its queue allows.

    What a strike cut off has no end: it is left out.
    """
    moves: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
    for root, wanted in evidence.accepted.items():
        begun: dict[tuple[str, str], float] = {}
        for entry in evidence.entries[root]:
            if (lane := wanted.lane_of(root, entry.name)) is None:
                continue
            if entry.phase == "start":
                begun[entry.name, entry.worker] = entry.at
            elif (at := begun.pop((entry.name, entry.worker), None)) is None:
                continue
            elif not _is_struck(evidence, entry.worker, at, entry.at, or_dismissed=False):
                moves[lane] += [(at, 1), (entry.at, -1)]
    for (lane_name, limit), each in moves.items():
        going = 0
        for at, move in sorted(each):
            going += move
            if going > limit:
                yield Miss("F23", "", f"{going} runs went on at {at} in {lane_name}, which allows {limit}")
                break


def _has_ended(evidence: Evidence, root: str) -> Iterator[Miss]:
    """O1: an accepted run ends, and ends as it must."""
    tree = evidence.tree(root)
    if not tree:
        yield Miss("O1", root, "the accepted run is not in the journal")
    for run in tree:
        if run["status"] != evidence.accepted[root].ends_as(run):
            yield Miss(
                "O1", root, f"{run['kind']} {run['name']} {run['id']} is {run['status']}: {run['error']}"
            )


def _recorded_once(evidence: Evidence, root: str, wanted: Promise) -> Iterator[Miss]:
    """O2: one outcome per step, the steps and the output of a run without faults."""
    found = evidence.shape(root)
    reference = _without_ends(evidence.references.get(wanted.program, found), wanted.absent)
    shape = _without_ends(found, wanted.absent)
    if shape != reference:
        missing, more = Counter(reference) - Counter(shape), Counter(shape) - Counter(reference)
        yield Miss("O2", root, f"lacks {list(missing.elements())}, has {list(more.elements())} instead")
    for run in evidence.tree(root):
        seqs = [step["seq"] for step in evidence.steps_of.get(run["id"], [])]
        if run["status"] != "completed":
            seqs = [seq for seq in seqs if seq is not None]  # what was under way at its end has no outcome
        if None in seqs or len(set(seqs)) != len(seqs):
            yield Miss("O2", root, f"outcomes of {run['name']} are numbered {seqs}")
    [run] = [run for run in evidence.tree(root) if run["id"] == root]
    output = None if run["output"] is None else json.loads(run["output"])
    given = output["result"] if run["kind"] == "agent" and output is not None else output
    if not wanted.accepts(given):
        yield Miss("O2", root, f"came to {given!r}")


def _without_ends(shape: Shape, names: Set[str]) -> Shape:
    """Return the shape without how these steps ended."""
    return tuple((*row[:-1], "any") if row[2] in names else row for row in shape)


def _executed_once(evidence: Evidence, root: str, wanted: Promise) -> Iterator[Miss]:
    """O3: a side effect is repeated only if its worker was struck before the outcome was recorded."""
    starts = _starts(evidence, root)
    expected = names_in(wanted.order)
    if not expected - wanted.absent <= set(starts) <= expected:
        yield Miss("O3", root, f"side effects {sorted(starts)} instead of {sorted(expected)}")
    ended = {entry.name for entry in evidence.entries[root] if entry.phase == "end"}
    if unended := set(starts) - ended - wanted.unended - wanted.absent:
        yield Miss("O3", root, f"side effects {sorted(unended)} began and never ended")
    recorded = _recorded_at(evidence, root, wanted)
    for name, entries in starts.items():
        made = [(entry.worker, entry.at) for entry in entries]
        free = wanted.free(name)
        yield from _justified(evidence, root, name, made, free=free, recorded_at=recorded.get(name))


def _in_order(evidence: Evidence, root: str, wanted: Promise) -> Iterator[Miss]:
    """O4: what follows a step begins after every execution of that step has begun and one has ended.

    A database that forgot the step has forgotten what followed it: that is executed again, too.
    """
    for problem in disorder(wanted.order, _spans(evidence, root)):
        yield Miss("O4", root, problem)


def _spans(evidence: Evidence, root: str) -> dict[str, Span]:
    forgets = any(strike.kind == FORGOTTEN for strike in evidence.strikes)
    spans: dict[str, Span] = {}
    for name, entries in _starts(evidence, root).items():
        ends = (entry.at for entry in _ends(evidence, root, name))
        spans[name] = Span(entries[-1 if forgets else 0].at, max(next(ends, 0.0), entries[-1].at))
    return spans


def _ends(evidence: Evidence, root: str, name: str) -> Iterator[Entry]:
    """Return the ends of a step's executions, but for those of executors that were struck in between.

    What they had begun is for others to decide, who do not wait for it.
    """
    for entry in evidence.entries[root]:
        if (entry.name, entry.phase) == (name, "end") and not _was_struck_before(evidence, root, entry):
            yield entry


def _was_struck_before(evidence: Evidence, root: str, end: Entry) -> bool:
    starts = (
        entry.at
        for entry in evidence.entries[root]
        if (entry.name, entry.phase, entry.pid) == (end.name, "start", end.pid) and entry.at <= end.at
    )
    begun = max(starts, default=end.at)
    return any(strike.worker == end.worker and begun <= strike.at <= end.at for strike in evidence.strikes)


def _nothing_left(evidence: Evidence, root: str, wanted: Promise) -> Iterator[Miss]:
    """O5: nothing is owned, promised or under way any more."""
    for run in evidence.tree(root):
        if run["owner"] or run["ring_at"] or run["claimed_at"]:
            yield Miss("O5", root, f"{run['name']} has owner {run['owner']}, ring_at {run['ring_at']}")
    for step in evidence.steps_in(root):
        if step["status"] not in {"completed", "failed"} or step["ring_at"]:
            yield Miss("O5", root, f"{step['name']} is {step['status']}, ring_at {step['ring_at']}")


def _remembered_once(evidence: Evidence, root: str, wanted: Promise) -> Iterator[Miss]:
    """O5: an agent's run left one block in its session, from input to answer, without an orphan call."""
    for run in evidence.tree(root):
        messages = evidence.messages_of.get(run["id"], [])
        items = [json.loads(message["item"]) for message in messages]
        numbers = [message["number"] for message in messages]
        if run["kind"] != "agent" or run["status"] != "completed":
            continue
        if len(items) < 2 or items[0].get("role") != "user":
            yield Miss("O5", root, f"{run['name']} left {items} in its session")
        if numbers != list(range(numbers[0], numbers[0] + len(numbers)) if numbers else []):
            yield Miss("O5", root, f"messages of {run['name']} are numbered {numbers}")
        if orphans := unpaired(items):
            yield Miss("O5", root, f"{run['name']} left calls without outputs: {orphans}")


def _paid_once(evidence: Evidence, root: str, wanted: Promise) -> Iterator[Miss]:
    """O7: a recorded turn was called once, plus once for each call cut short by a strike."""
    runs = {run["id"]: run for run in evidence.tree(root)}
    turns = [step for step in evidence.steps_in(root) if step["kind"] == "turn"]
    if len(turns) != wanted.turns:
        yield Miss("O7", root, f"{len(turns)} turns")
    for turn in turns:
        calls = evidence.calls_of[f"{turn['run_id']}:{turn['name']}"]
        refused = sum(call.status != 200 for call in calls)
        made = [(call.worker, call.began_at) for call in calls if call.status == 200]
        if not made:
            yield Miss("O7", root, f"{turn['name']} is recorded and was never called")
        if refused != wanted.refusals(runs[turn["run_id"]], turn):
            yield Miss("O7", root, f"{turn['name']} was refused {refused} times in {turn['tries']} tries")
        yield from _justified(
            evidence, root, turn["name"], made, free=0, recorded_at=turn["finished_at"], oracle="O7"
        )


def _justified(
    evidence: Evidence,
    root: str,
    name: str,
    made: list[tuple[str, float]],
    *,
    free: int,
    recorded_at: float | None,
    oracle: str = "O3",
) -> Iterator[Miss]:
    """Find repetitions for which no worker was struck, and those of what was recorded."""
    if len(made) > 1:
        made = [each for each in made if not _begun_by_the_thawed(evidence, *each)] or made
    unexplained: list[tuple[str, float]] = []
    for (worker, at), (_, again_at) in pairwise(made):
        if _is_struck(evidence, worker, at, again_at, or_dismissed=free > 0):
            unexplained.clear()  # failed tries that were not on record are forgotten
        else:
            unexplained.append((worker, at))
        if len(unexplained) > free:
            yield Miss(oracle, root, f"{name} was done {len(made)} times; no strike explains {unexplained}")
            break
    if recorded_at is not None and made and made[-1][1] > recorded_at:
        yield Miss(oracle, root, f"{name} was done again {made[-1][1] - recorded_at:.3f} s after its record")


def _is_struck(evidence: Evidence, worker: str, at: float, until: float, *, or_dismissed: bool) -> bool:
    """Whether a worker was struck meanwhile; one that ends counts no failures of steps any more."""
    strikes = evidence.strikes_of.get(worker, ())
    if or_dismissed and any(strike.kind == "term" and strike.at <= until for strike in strikes):
        return True
    return any(
        strike.kind != "term" and at - ARRIVES_LATE_SECONDS <= strike.at <= until for strike in strikes
    )


def _begun_by_the_thawed(evidence: Evidence, worker: str, at: float) -> bool:
    """Whether a worker that had been stopped between permission and deed did it when it went on."""
    strikes = evidence.strikes_of.get(worker, ())
    return any(
        strike.kind == "stop"
        and strike.until is not None
        and 0 <= at - strike.until <= DONE_WHEN_THAWED_SECONDS
        for strike in strikes
    )


def _starts(evidence: Evidence, root: str) -> dict[str, list[Entry]]:
    starts: dict[str, list[Entry]] = defaultdict(list)
    for entry in evidence.entries[root]:
        if entry.phase == "start":
            starts[entry.name].append(entry)
    return dict(starts)


def _recorded_at(evidence: Evidence, root: str, wanted: Promise) -> dict[str, float]:
    """Return when each side effect's outcome was recorded: of a step, or of the run of a tool."""
    times = {step["name"]: step["finished_at"] for step in evidence.steps_in(root) if step["kind"] == "run"}
    for run in evidence.tree(root):
        if run["kind"] == "tool":
            times[wanted.effect_of(run)] = run["finished_at"]
    return times


def _answered(calls: list[Call]) -> int:
    return sum(call.status == 200 for call in calls)


def _by(rows: list[dict[str, Any]], column: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row[column]].append(row)
    return dict(found)
