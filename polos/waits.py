"""Answering waits of runs: the oldest that waits under a key gets the answer, once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from polos import event_data, serialization
from polos.forms import ANSWERED_BY, checked_answer
from polos.journal.event_waits import READ_MET_OF_TOPIC, Met, hand_over
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.journal.suspends import READ_WAIT, READ_WAITS, resume
from polos.journal.waits import Woken
from polos.records import api_time
from polos.step_names import shown, user_key
from polos.streaming.cursor import Cursor, Position

Row = dict[str, Any]


class Journal(Protocol):
    """Reads and commits, off the event loop."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run units as one transaction."""


@dataclass(frozen=True)
class Answered:
    """An answer that counts: the run that waited, and the event that tells it.

    Attributes:
        woken: Id and state of the run; None for an answer that is kept until somebody asks.
    """

    root_id: str
    number: int
    woken: tuple[str, Woken] | None
    event: tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Wait:
    """A wait for an answer, open or over.

    Attributes:
        data: What was asked.
        answer: What was answered.
        answered_by: Who answered, as far as that is known.
    """

    status: str
    data: Any
    answer: Any
    error: str | None
    run_id: str
    asked_at: float
    ended_at: float | None
    expires_at: float | None
    answered_by: str | None = None

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
    event = serialization.loads(answer) if answer is not None else {}
    return Wait(
        status,
        serialization.loads(asked),
        event.get("data"),
        error,
        run_id,
        began,
        ended,
        expires,
        event.get("answered_by"),
    )


def answer_wait(
    journal: Journal,
    run: Row,
    step_key: str,
    data: Any,
    *,
    max_value_bytes: int,
    ring_again: float,
    run_id: str | None = None,
    answered_by: str | None = None,
    at: float | None = None,
) -> Answered | None:
    """Answer what waits under a key in the tree of `run`; None when that comes too late.

    Of several, the one of `run_id`, else of `run` if that is no root, else the oldest. An answer to what
    nobody has asked yet is kept for the first that asks. `at`: the time, by default that of this machine.

    Raises:
        AnswerError: It does not fit the form of the question.
        ValueTooLargeError, SerializationError: The data cannot be stored.
    """
    name = user_key(step_key)
    only = run_id or (run["id"] if run["id"] != run["root_id"] else None)
    waits = [row for row in journal.read(READ_WAITS, {"root": run["root_id"]}) if row[1] == name]
    chosen, asked = next(((row[0], row[2]) for row in waits if only in {None, row[0]}), (None, None))
    answer = Answer.of(
        run, step_key, data, asked=asked, answered_by=answered_by, max_value_bytes=max_value_bytes, at=at
    )
    [rows] = journal.commit([resume(chosen, name, **answer.columns(), ring_again=ring_again, only=only)])
    if not rows:
        return None
    number, run_id, *woken = rows[0]
    return Answered(run["root_id"], number, (run_id, Woken(*woken)) if run_id else None, answer.event)


@dataclass(frozen=True)
class Answer:
    """An answer as it is stored: the event that tells it, and what the step returns."""

    place: dict[str, str]
    event: tuple[str, dict[str, Any]]
    event_text: str
    output: str

    @classmethod
    def of(
        cls,
        run: Row,
        step_key: str,
        data: Any,
        *,
        max_value_bytes: int,
        asked: str | None = None,
        answered_by: str | None = None,
        at: float | None = None,
    ) -> Answer:
        """Return the answer to a key in the tree of `run`; `asked`: the question, JSON text.

        Raises:
            AnswerError: It does not fit the form of the question.
            ValueTooLargeError, SerializationError: The data cannot be stored.
        """
        given = serialization.to_data(data)
        answer = given if isinstance(given, dict) else {"value": given}
        if asked is not None:
            answer = checked_answer(serialization.loads(asked), step_key, answer)
        by = answered_by or answer.get(ANSWERED_BY)
        topic = event_data.topic_of(run["root_name"], run["root_id"])
        kind = event_data.resume_type(shown(user_key(step_key)))
        limit: dict[str, Any] = {"limit_bytes": max_value_bytes, "what": f"answer to {step_key!r}"}
        now = time.time() if at is None else at
        return cls(
            {"project": run["project"], "root": run["root_id"], "topic": topic},
            (kind, answer),
            serialization.dumps(answer, **limit),
            serialization.dumps(_envelope(topic, kind, answer, by, now), **limit),
        )

    def columns(self) -> dict[str, Any]:
        """Return what the units that answer take of it."""
        return {
            "place": self.place,
            "output": self.output,
            "event_type": self.event[0],
            "event_data": self.event_text,
        }


def root_in_topic(topic: str) -> str | None:
    """Return the id in a topic that may be that of a run tree, None for any other topic."""
    root_id = topic.rpartition("/")[2]
    if not topic.startswith("workflow/"):
        return None
    try:
        uuid.UUID(root_id)
    except ValueError:
        return None
    return root_id


def handing_over(met: Met, *, ring_again: float) -> Unit:
    """Return the unit that gives a waiting step the event it has met, as `EventPayload` has it."""
    position = Position.at(met.created_at)
    is_tree = root_in_topic(met.topic) is not None
    payload = {
        "id": str(Cursor(met.number, position)) if is_tree else str(met.number),
        "sequence_id": position.sequence_id if is_tree else met.number,
        "topic": met.topic,
        "event_type": met.type,
        "data": serialization.loads(met.data),
        "created_at": api_time(met.created_at),
    }
    return hand_over(met, serialization.dumps(payload), ring_again=ring_again)


def hand_over_all(
    journal: Journal, project: str, topic: str, *, ring_again: float
) -> list[tuple[str, Woken]]:
    """Give runs the events of a topic that they waited for, up to MAX_MET; return the runs it woke."""
    met = [Met(*row) for row in journal.read(READ_MET_OF_TOPIC, {"project": project, "topic": topic})]
    met.sort(key=lambda each: (each.root_id or "", each.run_id))
    answers = journal.commit([handing_over(each, ring_again=ring_again) for each in met])
    return [(each.run_id, Woken(*rows[0])) for each, rows in zip(met, answers, strict=True) if rows]


def _envelope(topic: str, kind: str, answer: dict[str, Any], by: object, now: float) -> dict[str, Any]:
    """Return what `ctx.step.suspend` returns: the answer as the event that gave it."""
    event = {
        "id": str(uuid.uuid4()),
        "sequence_id": Position.at(now).sequence_id,
        "topic": topic,
        "event_type": kind,
        "data": answer,
        "created_at": api_time(now),
    }
    return event if by is None else {**event, "answered_by": str(by)}
