"""What every duty of a sweeper works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from polos.dispatch import Dispatcher, Doorbell
from polos.journal.database import Connection
from polos.journal.postgres import TransientConflictError
from polos.journal.recovery import MAX_ROWS
from polos.journal.statements import Rows, Statement, Unit
from polos.routes import Routes
from polos.settings import Settings


class Duty(Protocol):
    """Something a sweeper looks after."""

    every_seconds: float  # between two looks; 0: at every sweep

    def do(self, desk: Desk) -> float | None:
        """Do what is due. Return after how many seconds to look again at the latest, None for the usual."""
        ...


Admit = Callable[[], None]  # says that runs are pending
Nudge = Callable[[str, str], None]  # tells the worker that owns a run: (worker id, run id)


def no_nudge(owner: str, run_id: str) -> None:
    """Tell nobody: the owner's audit sees it within a second."""


def no_admit() -> None:
    """Tell nobody: those who admit look each second."""


class Desk:
    """The sweeper's connection and what it rings with. Used by one thread."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        dispatcher: Dispatcher,
        routes: Routes,
        settings: Settings,
        nudge: Nudge = no_nudge,
        admit: Admit = no_admit,
    ) -> None:
        self.connect = connect
        self.nudge = nudge
        self.admit = admit
        self.routes = routes
        self.settings = settings
        self.triggering_topics: frozenset[tuple[str, str]] = frozenset()  # (project, topic), as last looked
        self._dispatcher = dispatcher

    def read(self, statement: Statement, params: Mapping[str, Any] | None = None) -> Rows:
        """Return the rows of a query."""
        return self.connect().read(statement, params or {})

    def do(self, unit: Unit) -> Rows:
        """Commit a unit; return its answer."""
        return self.commit([unit])[0]

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Commit units together; return their answers."""
        while True:
            try:
                return self.connect().commit(list(units))
            except TransientConflictError:
                continue  # nobody's fault

    def do_all(self, unit: Unit) -> int:
        """Repeat a unit that takes up to MAX_ROWS rows until it finds no more; return how many it moved."""
        moved = 0
        while rows := self.do(unit):
            moved += len(rows)
            if len(rows) < MAX_ROWS:
                break
        return moved

    def ring(self, *bells: Doorbell) -> None:
        """Ring doorbells."""
        self._dispatcher.ring(*bells)
