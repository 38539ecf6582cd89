"""The two Celery tasks. Arguments are ids only; what they return is what became of the run, for people."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import Celery

from polos.agents.turn import execute_turn
from polos.dispatch import RUN_TASK, TURN_TASK
from polos.engine.coordinator import coordinate
from polos.engine.runtime import NoSlot, Runtime
from polos.worker.bridge import AsyncTask
from polos.worker.forwarding import forward, may_serve
from polos.worker.slots import current_slot

if TYPE_CHECKING:
    from polos.worker.service import WorkerService

logger = logging.getLogger("polos.worker")


class RunFailedHere(Exception):  # noqa: N818 - a state shown in Flower, not an error of ours
    """Makes Flower show a failed run or turn as such; the reason stays in the journal, away from Flower."""


# What our tasks need whatever the app's own defaults are: the journal redelivers, so messages are
# acknowledged early, and results are rows, not messages.
OPTIONS: dict[str, Any] = {
    "base": AsyncTask,
    "acks_late": False,
    "ignore_result": True,
    "store_errors_even_if_ignored": False,
    "track_started": True,
    "max_retries": 0,
    "rate_limit": None,
    "time_limit": None,
    "soft_time_limit": None,
    "serializer": "json",
    "shared": False,
    "throws": (RunFailedHere,),  # expected: logged without a traceback
}
FAILED = "failed"
SERVICE = "polos_service"  # attribute of the app while its worker serves


def add_tasks(app: Celery) -> None:
    """Register polos.run and polos.turn with `app`."""
    app.task(**OPTIONS, name=RUN_TASK, bind=True)(_run)
    app.task(**OPTIONS, name=TURN_TASK, bind=True)(_turn)


async def _run(self: Any, run_id: str) -> str:
    runtime = _runtime(self.app)
    if runtime is None:
        return "not ready"
    if not may_serve(self.request.shadow):
        return await forward(runtime, run_id)
    became = await coordinate(runtime, run_id, current_slot() or NoSlot())
    return await forward(runtime, run_id) if became == "held elsewhere" else _shown(became, run_id)


async def _turn(self: Any, run_id: str, step: str) -> str:
    runtime = _runtime(self.app)
    if runtime is None:
        return "not ready"
    if not may_serve(self.request.shadow):
        return await forward(runtime, run_id, step)
    became = await execute_turn(runtime, run_id, step)
    return await forward(runtime, run_id, step) if became == "held elsewhere" else _shown(became, run_id)


def _shown(became: str, run_id: str) -> str:
    if became == FAILED:
        raise RunFailedHere(f"see: polos runs show {run_id}")
    return became


def _runtime(app: Celery) -> Runtime | None:
    """Return the runtime of this worker; None while it starts or ends: the sweeper rings again."""
    service: WorkerService | None = getattr(app, SERVICE, None)
    return None if service is None else service.runtime
