"""Admission: which pending runs are rung next. Limits hold, and nobody waits behind another's backlog.

Used by a thread of every worker and, right after they created pending runs, by clients. Whoever crashes on
the way costs at most the second until the next look of any worker.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from polos.dispatch import Doorbell
from polos.journal.admission import (
    DEFERRED_LANE,
    MAX_LANES,
    READ_ANY_PENDING,
    READ_DEFERRED,
    READ_DEFERRED_LANES,
    READ_FENCE_OF_ADMISSION,
    READ_HELD,
    READ_OFFERED,
    READ_RUNG,
    READ_WANTED,
    READ_WANTED_LANES,
    WANTED_LANE,
    Admitted,
    Candidate,
    Pace,
    admit_runs,
    lanes_after,
    offered_text,
    ripen,
)
from polos.journal.postgres import TransientConflictError
from polos.journal.queues import READ_QUEUES, QueueState, queue_state
from polos.journal.statements import Params, Rows, Statement, Unit

Lane = tuple[str, str]  # queue and concurrency key
MAX_ATTEMPTS = 20  # against others that admit at the same moment; the next pass goes on
MAX_FROM_A_LANE = 200  # in one pass
BURST_SECONDS = 0.05  # of a rate: so many runs of it may be rung and unclaimed, and one at least
UNSERVED_SECONDS = 5.0  # a lane none of whose runs a live worker offers is looked at so seldom
NO_LIMITS = QueueState("", None, None, None, None, 0, 0)


class Journal(Protocol):
    """A blocking connection to the journal."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run units as one transaction."""


@dataclass
class Outcome:
    """What a pass came to.

    Attributes:
        bells: To ring: the runs are admitted.
        again_seconds: When a rate limit lets the next run begin, None when none does.
        rung: Doorbells outstanding, by route with a backlog.
        paced: Queues with a rate limit.
        limited: Queues with any limit.
    """

    bells: list[Doorbell] = field(default_factory=list)
    again_seconds: float | None = None
    rung: dict[str, int] = field(default_factory=dict)
    paced: set[str] = field(default_factory=set)
    limited: set[str] = field(default_factory=set)

    def look_again(self, seconds: float) -> None:
        """Note that there may be something to do in so many seconds."""
        seconds = max(seconds, 0.001)
        self.again_seconds = seconds if self.again_seconds is None else min(self.again_seconds, seconds)


@dataclass
class _Waiting:
    """The runs of a lane that may be admitted now, the next first, and how many of it are under way."""

    lane: Lane
    runs: deque[Candidate]
    load: int
    is_limited: bool


class Admitter:
    """Admits pending runs of one deployment. For one thread.

    Args:
        journal: A blocking connection.
        project: Whose runs.
        deployment: Of which version of the code.
        window: How many doorbells of a route may be outstanding.
        ring_again: After how many seconds sweepers ring for what nobody claims.
        silence_limit_seconds: A worker that is silent for longer offers nothing.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        project: str,
        deployment: str,
        window: int,
        ring_again: float,
        silence_limit_seconds: float,
    ) -> None:
        self._journal = journal
        self._here = {"project": project, "deployment": deployment}
        self._silence = {"silence": silence_limit_seconds}
        self._ring_again = ring_again
        self.window = window
        self._cursors: dict[str, tuple[Any, ...]] = {}
        self._unserved: dict[tuple[Any, ...], float] = {}
        self._offered: dict[str, int] = {}

    @property
    def workers(self) -> int:
        """About how many workers share what is rung."""
        return max(self._offered.values(), default=1)

    def admit(self, lanes: Collection[Lane] | None = None) -> Outcome:
        """Admit what may begin now; of limited queues only in `lanes`, where they are given.

        The caller rings.
        """
        if lanes is None:
            self._journal.commit([ripen(**self._here)])
        for _ in range(MAX_ATTEMPTS):
            outcome = self._pass(lanes)
            if outcome is not None:
                return outcome
        return Outcome(again_seconds=BURST_SECONDS)

    # -- one attempt

    def _pass(self, lanes: Collection[Lane] | None) -> Outcome | None:
        """Return what came of one attempt, None when another admitted meanwhile."""
        deferred, wanted = self._read(READ_ANY_PENDING)[0]
        fence = self._read(READ_FENCE_OF_ADMISSION)
        outcome = Outcome()
        if not fence or not (wanted or (deferred and lanes is None)):
            return outcome
        seen, now = fence[0]
        self._read_offered()
        look = _Look(self, now, outcome)
        waiting = list(look.limited(lanes)) if wanted else []
        if deferred and lanes is None:
            waiting += look.deferred()
        chosen = look.chosen(waiting)
        return outcome if not chosen else self._admitted(chosen, seen, look, outcome)

    def _admitted(
        self, chosen: Sequence[Candidate], seen: int, look: _Look, outcome: Outcome
    ) -> Outcome | None:
        unit = admit_runs(
            [run.id for run in chosen],
            **self._here,
            seen=seen,
            ring_again=self._ring_again,
            paces=look.paces(chosen),
        )
        try:
            [rows] = self._journal.commit([unit])
        except TransientConflictError:
            return None
        if not rows and self._read(READ_FENCE_OF_ADMISSION)[0][0] != seen:
            return None
        order = {run.id: place for place, run in enumerate(chosen)}
        admitted = sorted((Admitted(*row) for row in rows), key=lambda run: order[run.id])
        outcome.bells += [self._bell(run) for run in admitted]
        for run in admitted:
            if run.parent_id is None and run.route in outcome.rung:
                outcome.rung[run.route] += 1
        return outcome

    def _bell(self, run: Admitted) -> Doorbell:
        begun = run.parent_id is not None or run.attempt > 0
        return Doorbell(run.id, run.name, run.route, self._here["deployment"], begun=begun)

    # -- reads

    def _read(self, statement: Statement, **params: Any) -> Rows:
        return self._journal.read(statement, {**self._here, **params})

    def _read_offered(self) -> None:
        rows = self._read(READ_OFFERED, **self._silence)
        offered: dict[str, int] = {row[0]: row[1] for row in rows}
        if offered.keys() != self._offered.keys():
            self._unserved.clear()
        self._offered = offered

    def _lanes(self, statement: Statement, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return up to MAX_LANES lanes; those beyond have their turn in the next pass."""
        key = names[0]
        rows = self._read(statement, **lanes_after(names, self._cursors.pop(key, None)))
        if len(rows) >= MAX_LANES:
            self._cursors[key] = rows[-1]
        return list(rows)

    def _candidates(
        self, statement: Statement, lane: tuple[Any, ...], most: int, **params: Any
    ) -> deque[Candidate]:
        if self._unserved.get(lane, 0.0) > time.monotonic():
            return deque()
        offered = offered_text(self._offered)
        rows = self._read(statement, **params, offered=offered, most=min(most, MAX_FROM_A_LANE))
        if not rows and params.get("any") != 0:
            self._unserved[lane] = time.monotonic() + UNSERVED_SECONDS
        return deque(Candidate(*row) for row in rows)


class _Look:
    """What one pass read, and what it decides."""

    def __init__(self, admitter: Admitter, now: float, outcome: Outcome) -> None:
        self._admitter = admitter
        self._now = now
        self._outcome = outcome
        self._queues = {row[0]: queue_state(row) for row in admitter._read(READ_QUEUES)}
        held = admitter._read(READ_HELD)
        self._held: dict[Lane, int] = {(queue, key): count for queue, key, count, _ in held}
        self._unclaimed: dict[str, int] = {}
        for queue, _, _, unclaimed in held:
            self._unclaimed[queue] = self._unclaimed.get(queue, 0) + int(unclaimed)
        self._rung: dict[str, dict[Lane, int]] = {}
        self._tokens: dict[str, int] = {}
        outcome.limited = {name for name, queue in self._queues.items() if queue.is_limited}
        outcome.paced = {name for name, queue in self._queues.items() if queue.rate_limit is not None}

    # -- who waits

    def limited(self, lanes: Collection[Lane] | None) -> Iterator[_Waiting]:
        """Yield the lanes of limited queues that have a slot free, and somebody who wants it."""
        admitter = self._admitter
        if lanes is None:
            lanes = [(row[0], row[1]) for row in admitter._lanes(READ_WANTED_LANES, WANTED_LANE)]
        for queue, key in lanes:
            limits = self._queues.get(queue, NO_LIMITS)
            held = self._held.get((queue, key), 0)
            free = admitter.window if limits.concurrency_limit is None else limits.concurrency_limit - held
            if free <= 0:
                continue
            may_begin = 0 if limits.is_paused or self._tokens_of(limits) == 0 else 1
            names = {"queue": queue, "concurrency_key": key}
            runs = admitter._candidates(READ_WANTED, (queue, key), free, any=may_begin, **names)
            if runs:
                yield _Waiting((queue, key), runs, held, is_limited=True)

    def deferred(self) -> Iterator[_Waiting]:
        """Yield the lanes of queues without limits, on routes with room for more doorbells."""
        admitter = self._admitter
        lanes = admitter._lanes(READ_DEFERRED_LANES, DEFERRED_LANE)
        for route in {lane[0] for lane in lanes}:
            self._outcome.rung[route] = sum(self._rung_on(route).values())
            if (room := self.room(route)) > 0:
                yield from self._deferred_on(route, [lane for lane in lanes if lane[0] == route], room)

    def _deferred_on(self, route: str, lanes: list[tuple[Any, ...]], room: int) -> Iterator[_Waiting]:
        rung = self._rung_on(route)
        random.shuffle(lanes)  # where there are more lanes than room, luck is fair
        lanes.sort(key=lambda lane: (-lane[1], rung.get((lane[2], lane[3]), 0)))
        alike = Counter(lane[1] for lane in lanes)
        found, priority = 0, lanes[0][1]
        for lane in lanes:
            if found >= room and (lane[1] != priority or found >= 2 * room):
                return
            priority = lane[1]
            share = math.ceil(room / min(alike[priority], room))
            names = dict(zip(DEFERRED_LANE, lane, strict=True))
            if runs := self._admitter._candidates(READ_DEFERRED, lane, share + 1, **names):
                found += len(runs)
                load = rung.get((lane[2], lane[3]), 0)
                yield _Waiting((lane[2], lane[3]), runs, load, is_limited=False)

    def _rung_on(self, route: str) -> dict[Lane, int]:
        if route not in self._rung:
            rows = self._admitter._read(READ_RUNG, route=route)
            self._rung[route] = {(queue, key): count for queue, key, count in rows}
        return self._rung[route]

    def room(self, route: str) -> int:
        """Return how many more doorbells may be outstanding on a route."""
        return self._admitter.window - sum(self._rung_on(route).values())

    # -- who is next

    def chosen(self, waiting: Iterable[_Waiting]) -> list[Candidate]:
        """Return who is admitted: by priority, then lane by lane, the one with least under way first."""
        lanes = list(waiting)
        room: dict[str, int] = {}
        chosen: list[Candidate] = []
        for priority in sorted({run.priority for lane in lanes for run in lane.runs}, reverse=True):
            heap = [
                (lane.load, lane.runs[0].created_at, place, lane)
                for place, lane in enumerate(lanes)
                if lane.runs and lane.runs[0].priority == priority
            ]
            heapq.heapify(heap)
            while heap:
                _, _, place, lane = heapq.heappop(heap)
                run = lane.runs.popleft()
                if self._may_begin(run, lane, room):
                    chosen.append(run)
                    lane.load += 1
                if lane.runs and lane.runs[0].priority == priority:
                    heapq.heappush(heap, (lane.load, lane.runs[0].created_at, place, lane))
        return chosen

    def _may_begin(self, run: Candidate, lane: _Waiting, room: dict[str, int]) -> bool:
        """Take what a run needs besides its slot: room on its route, and time of its queue's rate."""
        if run.has_begun:
            return True  # neither is for what is under way
        limits = self._queues.get(run.queue, NO_LIMITS) if lane.is_limited else NO_LIMITS
        if limits.is_paused or self._tokens_of(limits) == 0:
            return False
        left = room.setdefault(run.route, self.room(run.route))
        if left <= 0:
            return False
        room[run.route] = left - 1
        if limits.rate_limit is not None:
            self._tokens[limits.name] -= 1
        return True

    # -- rates

    def _tokens_of(self, limits: QueueState) -> int:
        """Return how many runs a rate lets begin now; -1 when there is none."""
        if limits.spacing_seconds is None:
            return -1
        if limits.name not in self._tokens:
            self._tokens[limits.name] = self._new_tokens(limits, limits.spacing_seconds)
        return self._tokens[limits.name]

    def _new_tokens(self, limits: QueueState, spacing_seconds: float) -> int:
        wait = (limits.next_at or 0.0) - self._now
        if wait > 0:
            self._outcome.look_again(wait)
            return 0
        burst = max(1, int(BURST_SECONDS / spacing_seconds))
        self._outcome.look_again(spacing_seconds * burst)
        return max(burst - self._unclaimed.get(limits.name, 0), 0)

    def paces(self, chosen: Sequence[Candidate]) -> list[Pace]:
        """Return the time that what begins takes of its queues' rates."""
        counts: dict[str, int] = {}
        for run in chosen:
            if not run.has_begun and run.queue in self._outcome.paced:
                counts[run.queue] = counts.get(run.queue, 0) + 1
        return [
            Pace(queue, count, self._queues[queue].spacing_seconds or 0.0)
            for queue, count in sorted(counts.items())
        ]
