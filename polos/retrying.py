"""Letting a run go on that has failed or was cancelled: which may, and what their readers are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos import event_data, serialization
from polos.errors import InputError
from polos.journal.retries import RETRIED, retry_ended
from polos.journal.statements import Unit


def retrying(run: Mapping[str, Any], *, ring_again: float) -> Unit:
    """Return the unit that lets a run, given by column name, go on; answers (id, when rung), or nothing.

    Raises:
        ValueError: It is not the root of its tree, or has neither failed nor been cancelled.
    """
    if run["parent_id"] is not None:
        raise InputError(
            f"Run {run['id']} was started by another one, which goes on without it; retry the root of the "
            f"tree, {run['root_id']}, which retries what failed below it"
        )
    if run["status"] not in RETRIED:
        raise not_retried(run)
    where = event_data.metadata(run["id"], run["name"])
    kind, data = event_data.run_retried(run["kind"], where, run["error"])
    topic = event_data.topic_of(run["root_name"], run["root_id"])
    event = (kind, serialization.dumps(data))
    return retry_ended(run["id"], event=event, topic=topic, ring_again=ring_again)


def not_retried(run: Mapping[str, Any]) -> ValueError:
    """Return the error of a retry that comes too early, too late or twice."""
    return InputError(f"Run {run['id']} is {run['status']}; only failed and cancelled runs are retried")
