"""What is checked of random programs beyond the oracles of all scenarios."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ledger import Entry
from oracles import Evidence, Miss, check

from fuzz.interpreter import BLOCK_SECONDS, BLOCKS
from fuzz.promises import INTERRUPTED, ProgramRun, script_of
from polos.events import StreamEvent

CANCEL_SECONDS = 5.0  # until what executes has heard of it, on a loaded machine and without a broker
_END = {"cancelled": "cancel"}
Streams = Mapping[str, list[StreamEvent]]


def judged(evidence: Evidence, streams: Streams) -> list[Miss]:
    """Return every promise that was not kept; runs that were cancelled in time have other ones."""
    roots = {run["id"]: run for run in evidence.runs if run["id"] in evidence.accepted}
    cancelled = [root for root, run in evidence.accepted.items() if _was_cancelled(run, roots.get(root))]
    others = {root: run for root, run in evidence.accepted.items() if root not in cancelled}
    misses = check(replace(evidence, accepted=others))
    for root in cancelled:
        misses += _cancelled_well(evidence, root)
    for root in others:
        misses += _at_most_once(evidence, root)
    for root, events in streams.items():
        if root not in roots or any(run["finished_at"] is None for run in evidence.tree(root)):
            continue  # which is a miss already
        misses += _told(evidence, root, events, is_whole=root in others)
    return misses


def _was_cancelled(promise: Any, run: dict[str, Any] | None) -> bool:
    return promise.cancelled_after is not None and run is not None and run["status"] == "cancelled"


def _cancelled_well(evidence: Evidence, root: str) -> Iterator[Miss]:
    """F25: all of the tree has ended, nothing is owned, and nothing is begun that much later."""
    tree = evidence.tree(root)
    for run in tree:
        if run["finished_at"] is None:
            yield Miss(
                "F25", root, f"{run['name']} {run['id']} is {run['status']} though its root is cancelled"
            )
        if run["owner"] or run["ring_at"] or run["claimed_at"]:
            yield Miss("O5", root, f"{run['name']} has owner {run['owner']}, ring_at {run['ring_at']}")
    [cancelled_at] = [run["finished_at"] for run in tree if run["id"] == root]
    starts = [entry for entry in evidence.entries[root] if entry.phase == "start"]
    for entry in starts:
        if entry.at > cancelled_at + CANCEL_SECONDS and not _was_blocked(evidence, entry, cancelled_at):
            yield Miss("F25", root, f"{entry.name} began {entry.at - cancelled_at:.1f} s after the cancel")


def _was_blocked(evidence: Evidence, begun: Entry, since: float) -> bool:
    """Whether the loop of its worker was blocked meanwhile: nobody hears of a cancel then."""
    blocks = (entry for entry in evidence.entries[BLOCKS] if entry.pid == begun.pid)
    return any(
        since - BLOCK_SECONDS <= block.at <= begun.at <= block.at + BLOCK_SECONDS + CANCEL_SECONDS
        for block in blocks
    )


def _at_most_once(evidence: Evidence, root: str) -> Iterator[Miss]:
    """F3: what may happen once never happens twice, and is left out only if a worker was struck meanwhile."""
    promise: ProgramRun = evidence.accepted[root]  # type: ignore[assignment]
    starts = Counter(entry.name for entry in evidence.entries[root] if entry.phase == "start")
    for step in evidence.steps_in(root):
        if step["name"] not in promise.reference.once:
            continue
        if starts[step["name"]] > 1:
            yield Miss(
                "F3", root, f"{step['name']} may happen once and was begun {starts[step['name']]} times"
            )
        if step["status"] != "failed":
            continue
        [run] = [run for run in evidence.tree(root) if run["id"] == step["run_id"]]
        began, ended = run["started_at"] or run["created_at"], step["finished_at"] or run["finished_at"]
        if not any(began <= strike.at <= ended for strike in evidence.strikes):
            yield Miss("F3", root, f"{step['name']} was {INTERRUPTED} and nobody was struck")


def _told(evidence: Evidence, root: str, events: list[StreamEvent], *, is_whole: bool) -> Iterator[Miss]:
    """O6: a reader has every start and end once, in order, and the text that counts."""
    numbers = [event.sequence_id for event in events]
    if numbers != sorted(numbers):
        yield Miss("O6", root, f"events came in the order {numbers}")
    if len({event.id for event in events}) != len(events):
        yield Miss("O6", root, "an event came twice")
    if not events or not _is_end(events[-1], root):
        yield Miss("O6", root, f"the last event is {events[-1] if events else None}, not the end of the run")
    if not is_whole:
        return
    said = Counter(event.event_type for event in events if event.event_type)
    yield from _starts_and_ends(evidence, root, events)
    promise: ProgramRun = evidence.accepted[root]  # type: ignore[assignment]
    told = Counter(event.data.get("path") for event in events if event.event_type == "progress")
    wanted = Counter(promise.reference.told)
    if told - wanted or (wanted - told - _told_too_late(evidence, root) and not promise.reference.fails):
        yield Miss("O6", root, f"progress was told {told}, of all events {said}")
    texts = _texts(events)
    [end] = [run["finished_at"] for run in evidence.tree(root) if run["id"] == root]
    for run in evidence.tree(root):
        if run["finished_at"] > end:
            continue
        if run["kind"] == "agent" and (path := script_of(run).path) in promise.reference.texts:
            text, answer = texts.get(run["id"], ""), promise.reference.texts[path]
            if text != answer:
                yield Miss("O6", root, f"{path} said {text!r} to its reader, {answer!r} in the end")


def _told_too_late(evidence: Evidence, root: str) -> Counter[str]:
    """Return what runs told that outlived the root: its readers had gone."""
    [end] = [run["ended_event"] or 0 for run in evidence.tree(root) if run["id"] == root]
    told = (event for event in evidence.events if event["type"] == "progress")
    late = (event for event in told if event["topic"].endswith(f"/{root}") and event["number"] > end)
    return Counter(json.loads(event["data"]).get("path") for event in late)


def _starts_and_ends(evidence: Evidence, root: str, events: list[StreamEvent]) -> Iterator[Miss]:
    """Ends are on record, and so is the start of the root; other starts are told once or not at all."""
    [end] = [run["finished_at"] for run in evidence.tree(root) if run["id"] == root]
    of_runs = [event for event in events if _is_of_run(event)]
    told = Counter((_run_of(event), (event.event_type or "").rpartition("_")[2]) for event in of_runs)
    for run in evidence.tree(root):
        what = f"{run['kind']} {run['name']} {run['id']}"
        ends, starts = told[run["id"], _END.get(run["status"], "finish")], told[run["id"], "start"]
        if ends > 1 or (ends < 1 and run["finished_at"] < end):
            yield Miss("O6", root, f"the end of {what} was told {ends} times")
        if starts > 1 or (starts < 1 and run["id"] == root):
            yield Miss("O6", root, f"the start of {what} was told {starts} times")


def _is_of_run(event: StreamEvent) -> bool:
    kind, _, what = (event.event_type or "").rpartition("_")
    return kind in {"workflow", "agent", "tool"} and what in {"start", "finish", "cancel"}


def _is_end(event: StreamEvent, root: str) -> bool:
    return _is_of_run(event) and not (event.event_type or "").endswith("_start") and _run_of(event) == root


def _run_of(event: StreamEvent) -> str:
    return str((event.data.get("_metadata") or {}).get("execution_id"))


def _texts(events: list[StreamEvent]) -> dict[str, str]:
    """Return what each run's turns said, of the attempts that count."""
    turns: dict[tuple[str, int], str] = defaultdict(str)
    for event in events:
        key = (_run_of(event), event.data.get("step", 0))
        if event.event_type == "text_delta":
            turns[key] += event.data["content"] or ""
        elif event.event_type in {"stream_reset", "stream_start"}:
            turns[key] = ""
    whole: dict[str, str] = defaultdict(str)
    for (run, _), text in turns.items():
        whole[run] += text
    return whole
