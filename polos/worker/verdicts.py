"""Who is dead: silence proves it, a free lock only shortens the wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polos.journal.workers import SeenWorker

SUSPICION_SECONDS = 1.5  # a lock seen free and no beat since for this long: dead
FRESH_BEAT_SECONDS = 3.0  # younger than this when the lock was first seen free: it was no outage


@dataclass(frozen=True)
class _Suspicion:
    """A worker whose lock was seen free."""

    since: float
    beat_at: float
    was_beating: bool


class Coroner:
    """Judges workers from sweep to sweep. Times are the database's, in seconds."""

    def __init__(self, *, silence_limit_seconds: float) -> None:
        self._limit = silence_limit_seconds
        self._contact_since: float | None = None
        self._last_sweep = 0.0
        self._suspicions: dict[str, _Suspicion] = {}

    def lost_contact(self) -> None:
        """Take note that the database could not be reached: everyone gets the time to beat again."""
        self._contact_since = None
        self._suspicions.clear()

    def dead(
        self, workers: Sequence[SeenWorker], free: set[str], *, now: float, server_up_seconds: float
    ) -> list[SeenWorker]:
        """Return the workers that are dead for certain.

        Nobody is judged until this sweeper has reached the database without a break for the whole silence
        limit. Sooner only a worker that was beating until its lock became free, on a server that did not just
        start: an outage looks different.
        """
        self._note_contact(now)
        self._note_suspicions(workers, free, now)
        if server_up_seconds < self._limit:
            return []
        return [worker for worker in workers if self._is_dead(worker, now)]

    @property
    def suspects(self) -> bool:
        """Whether the next look should come sooner than usual."""
        return bool(self._suspicions)

    def _note_contact(self, now: float) -> None:
        if self._contact_since is None or not 0 <= now - self._last_sweep < self._limit / 2:
            self._contact_since = now  # the first look, or this process or the clock stood still
        self._last_sweep = now

    def _note_suspicions(self, workers: Sequence[SeenWorker], free: set[str], now: float) -> None:
        kept = {}
        for worker in workers:
            before = self._suspicions.get(worker.id)
            if worker.id not in free:
                continue
            if before is not None and before.beat_at == worker.beat_at:
                kept[worker.id] = before
            else:
                was_beating = worker.silent_seconds < FRESH_BEAT_SECONDS
                kept[worker.id] = _Suspicion(now, worker.beat_at, was_beating)
        self._suspicions = kept

    def _is_dead(self, worker: SeenWorker, now: float) -> bool:
        contact = now - (self._contact_since if self._contact_since is not None else now)
        suspicion = self._suspicions.get(worker.id)
        if contact >= self._limit and worker.silent_seconds >= self._limit:
            return True
        if suspicion is None or now - suspicion.since < SUSPICION_SECONDS:
            return False
        return suspicion.was_beating or contact >= self._limit
