"""The workers of an arena: hired, killed, frozen, sent home, with a list of what was done to whom."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from ledger import WORKER
from processes import Worker

FORGOTTEN = "forgotten"


@dataclass(frozen=True)
class Strike:
    """A worker was killed or frozen: what it had begun and not recorded, others do again.

    Attributes:
        kind: ``kill9``, ``stop``, or ``term`` of one that was asked to end: what it has begun it ends, but
            what fails meanwhile is tried again elsewhere.
        until: When a stopped one was let go on.
    """

    worker: str
    kind: str
    at: float
    until: float | None = None


def _none(name: str) -> Sequence[str]:
    return ()


class Crew:
    """Starts workers as they are wanted. Their names are never used twice.

    Args:
        prefix_of: What the command of a worker of some name begins with.
    """

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        *,
        options: Sequence[str],
        prefix_of: Callable[[str], Sequence[str]] = _none,
    ) -> None:
        self._prefix_of = prefix_of
        self._folder = folder
        self._environment = environment
        self._options = options
        self._numbers = count(1)
        self.workers: list[Worker] = []
        self.strikes: list[Strike] = []
        self.dismissed: set[str] = set()

    def hire(self, **environment: str) -> Worker:
        """Start a worker that serves everything."""
        number = next(self._numbers)
        name = f"w{number}-{self._folder.name}"
        # Every second one sends everything by way of the broker: each fleet does both.
        delivery = {"POLOS_LOCAL_DELIVERY": "0.5" if number % 2 else "0"}
        mine = {**delivery, **self._environment, **environment, WORKER: name}
        self.workers.append(
            Worker(
                f"{name}@here",
                (),
                mine,
                self._folder,
                options=self._options,
                prefix=self._prefix_of(name),
            )
        )
        return self.workers[-1]

    @property
    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.lives]

    @property
    def ended_by_themselves(self) -> list[Worker]:
        """Workers that are gone though nobody killed them or asked them to end."""
        expected = self.struck | self.dismissed
        return [worker for worker in self.workers if not worker.lives and name_of(worker) not in expected]

    @property
    def struck(self) -> set[str]:
        """Names of workers that were kept from beating for good or for a time."""
        return {strike.worker for strike in self.strikes if strike.kind not in {"term", FORGOTTEN}}

    def kill(self, worker: Worker) -> None:
        """Kill a worker's whole process group with SIGKILL."""
        self._note(worker, "kill9")  # before: others may begin at once what it leaves behind
        worker.end()

    def freeze(self, worker: Worker) -> None:
        """Stop a worker's process group in the middle of whatever it does."""
        self._note(worker, "stop")
        os.killpg(worker.pid, signal.SIGSTOP)

    def thaw(self, worker: Worker) -> None:
        os.killpg(worker.pid, signal.SIGCONT)
        now, name = time.time(), name_of(worker)
        self.strikes = [
            replace(strike, until=now) if strike == self._last_stop(name) else strike
            for strike in self.strikes
        ]

    def _last_stop(self, name: str) -> Strike | None:
        stops = [strike for strike in self.strikes if (strike.worker, strike.kind) == (name, "stop")]
        return stops[-1] if stops else None

    def dismiss(self, worker: Worker) -> None:
        """Ask a worker to end, as a deployment does."""
        self._note(worker, "term")
        self.dismissed.add(name_of(worker))
        os.kill(worker.pid, signal.SIGTERM)

    def cut_off(self, worker: Worker) -> None:
        """Take note of a worker that the network keeps from its database for longer than it may be silent."""
        self._note(worker, "cut off")

    def cut_short(self, worker: Worker) -> None:
        """Take note of a worker that ends before what it executes does."""
        self._note(worker, "cut short")

    def killed_itself(self, worker: str, at: float) -> None:
        """Take note of a worker that what it executed has killed, or one of its processes."""
        self.strikes.append(Strike(worker, "poison", at))

    def forgotten(self) -> None:
        """Take note that what any of them has recorded of late may be lost."""
        for worker in self.living:
            self._note(worker, FORGOTTEN)

    def froze_itself(self, worker: Worker, at: float) -> None:
        """Take note of a worker that its own fault point has stopped."""
        self.strikes.append(Strike(name_of(worker), "stop", at))

    def logs(self) -> Iterator[tuple[Worker, str]]:
        for worker in self.workers:
            yield worker, worker.log.read_text(errors="replace") if worker.log.exists() else ""

    def end(self) -> None:
        """Kill everybody who is left."""
        for worker in self.workers:
            worker.end()

    def _note(self, worker: Worker, kind: str) -> None:
        self.strikes.append(Strike(name_of(worker), kind, time.time()))


def name_of(worker: Worker) -> str:
    """Return the name a worker has in ledger and bill."""
    return worker.name.partition("@")[0]
