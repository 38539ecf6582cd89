"""The two Celery tasks. Arguments are ids only; what they return is what became of the run, for people."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from celery import Celery

from polos.engine.runtime import NoSlot, Runtime
from polos.routes import RUN_TASK, TURN_TASK
from polos.worker.bridge import AsyncTask
from polos.worker.serving import serve_run, serve_turn
from polos.worker.slots import current_slot
from polos.worker.stock import HOST, NOT_READY, StockHost
from polos.worker.unreadable import doorbell_ids

if TYPE_CHECKING:
    from polos.worker.service import WorkerService

logger = logging.getLogger("polos.worker")


UNLIMITED_SECONDS = 10 * 365 * 86400.0


class RunFailedHere(Exception):  # noqa: N818 - a state shown in Flower, not an error of ours
    """Makes Flower show a failed run or turn as such; the reason stays in the journal, away from Flower."""


class RunTask(AsyncTask):
    """A task of ours: on a stock pool its body is driven by the host of this process."""

    abstract = True

    @classmethod
    def annotate(cls) -> None:
        """Celery's hook for `task_annotations`: what they say of all tasks is not for ours (see OPTIONS)."""

    @classmethod
    def drive(cls, body: Coroutine[Any, Any, Any]) -> Any:
        """Execute a body for a stock pool."""
        host: StockHost | None = getattr(cls.app, HOST, None)
        if host is None:
            body.close()
            return NOT_READY
        return host.run(body)


# What our tasks need whatever the app's own defaults are: the journal redelivers, so messages are
# acknowledged early, and results are rows, not messages.
OPTIONS: dict[str, Any] = {
    "base": RunTask,
    "acks_late": False,
    "ignore_result": True,
    "store_errors_even_if_ignored": False,
    "track_started": True,
    "max_retries": 0,
    "rate_limit": 0,  # none, whatever the app says
    "time_limit": UNLIMITED_SECONDS,  # runs have limits of their own
    "soft_time_limit": UNLIMITED_SECONDS,
    "serializer": "json",
    "shared": False,
    "throws": (RunFailedHere,),  # expected: logged without a traceback
}
FAILED = "failed"
NO_DOORBELL = "no doorbell"
SERVICE = "polos_service"  # attribute of the app while its worker serves


def add_tasks(app: Celery) -> None:
    """Register polos.run and polos.turn with `app`."""
    app.task(**OPTIONS, name=RUN_TASK, bind=True)(_run)
    app.task(**OPTIONS, name=TURN_TASK, bind=True)(_turn)


async def _run(self: Any, *args: Any, **kwargs: Any) -> str:
    runtime, ids = _runtime(self.app), doorbell_ids(args, kwargs, 1)
    if runtime is None or ids is None:
        return NOT_READY if runtime is None else NO_DOORBELL
    [run_id] = ids
    became = await serve_run(runtime, run_id, current_slot() or NoSlot(), label=_label(self.request))
    return _shown(became, run_id)


async def _turn(self: Any, *args: Any, **kwargs: Any) -> str:
    runtime, ids = _runtime(self.app), doorbell_ids(args, kwargs, 2)
    if runtime is None or ids is None:
        return NOT_READY if runtime is None else NO_DOORBELL
    run_id, step = ids
    slot = current_slot() or NoSlot()
    return _shown(await serve_turn(runtime, run_id, step, slot, label=_label(self.request)), run_id)


def _label(request: Any) -> str | None:
    """Return what the message says Flower shall show, as far as it is a text: anyone may have written it."""
    return request.shadow if isinstance(request.shadow, str) else None


def _shown(became: str, run_id: str) -> str:
    if became == FAILED:
        raise RunFailedHere(f"see: polos runs show {run_id}")
    return became


def _runtime(app: Celery) -> Runtime | None:
    """Return the runtime of this worker; None while it starts or ends: the sweeper rings again."""
    host: StockHost | None = getattr(app, HOST, None)
    service: WorkerService | None = getattr(app, SERVICE, None) if host is None else host.service
    return None if service is None else service.runtime
