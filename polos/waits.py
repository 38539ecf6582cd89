"""Answering waits of runs: the oldest that waits under a key gets the answer, once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from polos import event_data, serialization
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.journal.suspends import READ_WAIT, READ_WAITS, resume
from polos.records import api_time
from polos.step_names import user_key
from polos.streaming.cursor import Position

Row = dict[str, Any]


class Journal(Protocol):
    """Reads and commits, off the event loop."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run units as one transaction."""


@dataclass(frozen=True)
class Answered:
    """A wait that was answered: what became of its run, and the event that tells it."""

    run_id: str
    root_id: str
    status: str
    owner: str | None
    number: int
    name: str
    route: str
    deployment: str
    event: tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Wait:
    """A wait for an answer, open or over. `data` is what was asked, `answer` what was answered."""

    status: str
    data: Any
    answer: Any
    error: str | None
    run_id: str
    asked_at: float
    ended_at: float | None
    expires_at: float | None

    @property
    def is_open(self) -> bool:
        """Whether it still waits."""
        return self.status == "running"


def find_wait(journal: Journal, run: Row, step_key: str) -> Wait | None:
    """Return the open wait under a key in the tree of `run`, else the last one; None if there was none."""
    rows = journal.read(READ_WAIT, {"root": run["root_id"], "name": user_key(step_key)})
    if not rows:
        return None
    status, asked, answer, error, began, ended, expires, run_id = rows[0]
    given = serialization.loads(answer)["data"] if answer is not None else None
    return Wait(status, serialization.loads(asked), given, error, run_id, began, ended, expires)


def answer_wait(
    journal: Journal,
    run: Row,
    step_key: str,
    data: Any,
    *,
    max_value_bytes: int,
    ring_again: float,
    run_id: str | None = None,
) -> Answered | None:
    """Answer what waits under a key in the tree of `run`; None when nothing does (any more).

    Of several, the one of `run_id`, else of `run` if that is no root, else the oldest.

    Raises:
        ValueTooLargeError, SerializationError: The data cannot be stored.
    """
    name = user_key(step_key)
    only = run_id or (run["id"] if run["id"] != run["root_id"] else None)
    waits = [row for row in journal.read(READ_WAITS, {"root": run["root_id"]}) if row[1] == name]
    chosen = next((row[0] for row in waits if only in {None, row[0]}), None)
    if chosen is None:
        return None
    given = serialization.to_data(data)
    answer = given if isinstance(given, dict) else {"value": given}
    topic = event_data.topic_of(run["root_name"], run["root_id"])
    kind = event_data.resume_type(step_key)
    limit: dict[str, Any] = {"limit_bytes": max_value_bytes, "what": f"answer to {step_key!r}"}
    unit = resume(
        chosen,
        name,
        place={"project": run["project"], "root": run["root_id"], "topic": topic},
        output=serialization.dumps(_envelope(topic, kind, answer), **limit),
        event_type=kind,
        event_data=serialization.dumps(answer, **limit),
        ring_again=ring_again,
    )
    [rows] = journal.commit([unit])
    if not rows:
        return None
    status, owner, number, run_name, route, deployment = rows[0]
    return Answered(
        chosen, run["root_id"], status, owner, number, run_name, route, deployment, (kind, answer)
    )


def _envelope(topic: str, kind: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return what `ctx.step.suspend` returns: the answer as the event that gave it."""
    now = time.time()
    return {
        "id": str(uuid.uuid4()),
        "sequence_id": Position.at(now).sequence_id,
        "topic": topic,
        "event_type": kind,
        "data": answer,
        "created_at": api_time(now),
    }
