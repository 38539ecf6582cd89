"""A doorbell that this worker cannot serve goes to a live worker that can."""

from __future__ import annotations

import logging
from typing import Any

from polos.dispatch import Doorbell
from polos.engine.runtime import Runtime
from polos.journal.runs import READ_RUN, is_pending, run_record
from polos.journal.statements import Rows
from polos.journal.states import RunStatus
from polos.journal.workers import READ_OFFERING
from polos.registry import family_id, get_workflow
from polos.routes import TURN_SUFFIX, turn_label

logger = logging.getLogger("polos.worker")


def may_serve(runtime: Runtime, label: str | None) -> bool:
    """Whether what a doorbell is labelled with is defined and served here; unlabelled ones may be."""
    if not label:
        return True
    definition = get_workflow(label.removesuffix(TURN_SUFFIX))
    if definition is None or label.endswith(TURN_SUFFIX):
        return definition is not None
    return runtime.routes.of_run(label, definition.route) in runtime.serves


async def forward(runtime: Runtime, run_id: str, step: str | None = None) -> str:
    """Ring a live worker that offers the run's definition in its deployment, if this one does not."""
    rows = await runtime.journal.read(READ_RUN, run=run_id)
    if not rows:
        return "unknown run"
    run = run_record(rows[0])
    if step is None and is_pending(run):
        runtime.doorman.look_at(run["queue"], run["concurrency_key"])
        return "waits for its queue"
    wanted = run["status"] == RunStatus.QUEUED if step is None else run["finished_at"] is None
    if not wanted or _is_ours(runtime, run, step):
        return "held elsewhere"
    offering = await _offering(runtime, run, run["name"])
    if not offering and run["kind"] == "tool":
        offering = await _offering(runtime, run, family_id(run["name"]))
    if not offering:
        logger.warning(
            "No live worker serves %s %r of deployment %r; run %s waits until one starts",
            run["kind"] or "workflow",
            run["name"],
            run["deployment"],
            run_id,
        )
        return "nobody serves it"
    _, hostname = offering[0]
    runtime.dispatcher.ring(
        Doorbell(run_id, _label(run, step), run["route"], run["deployment"], step=step, hostname=hostname)
    )
    return f"forwarded to {hostname}"


async def _offering(runtime: Runtime, run: dict[str, Any], name: str) -> Rows:
    return await runtime.journal.read(
        READ_OFFERING,
        project=run["project"],
        deployment=run["deployment"],
        kind=run["kind"],
        name=name,
        silence=runtime.settings.silence_limit_seconds,
    )


def _is_ours(runtime: Runtime, run: dict[str, object], step: str | None) -> bool:
    here = (runtime.project, runtime.deployment) == (run["project"], run["deployment"])
    return here and may_serve(runtime, _label(run, step))


def _label(run: dict[str, object], step: str | None) -> str:
    name = str(run["name"])
    return name if step is None else turn_label(name)
