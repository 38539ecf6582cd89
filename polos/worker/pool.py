"""The Celery pool of one event loop: `async def` tasks on it, ordinary ones in threads, `-c` of them at once.

`app.conf.worker_pool = "polos.worker.pool:AsyncioPool"` selects it. Celery's own tracer and request run
unchanged; the pool gives each task a slot, runs it, and reports on the consumer's thread.

How the ends of a worker reach the pool:

- SIGTERM, warm: the consumer's loop raises `WorkerShutdown`; the worker calls `close` (so `on_drain` runs
  first, while the broker connection and the loop are still up), stops the consumer, then calls `stop`,
  which waits for all that executes. Messages not yet accepted go back to the queue.
- SIGQUIT, cold: the signal handler waits out `worker_soft_shutdown_timeout` while tasks go on, cancels the
  active requests and calls `stop`, so `on_drain` runs after that time, on the main thread; then the worker
  calls `close` and `terminate`, which find nothing left.
- A host that ends a worker in its own thread: `close`, then `terminate`, which cancels and reports nothing.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import os
import signal as signals_of_os
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated
from celery import signals
from celery.concurrency.base import BasePool
from celery.exceptions import SoftTimeLimitExceeded, WorkerLostError
from celery.utils.log import get_logger
from celery.worker import state as worker_state

from polos.threads import DaemonThreads
from polos.worker.bridge import Mailbox, in_greenlet
from polos.worker.loop_thread import LoopThread
from polos.worker.slots import Slot, Slots, enter_slot

T = TypeVar("T")
Report = tuple[Callable[..., Any], tuple[Any, ...]]  # a callback of the request and its arguments

logger = get_logger("celery.pool")

# What a body gets to unwind after a hard limit or a revoke before it is reported, and cancelled again.
_UNWIND_SECONDS = 5.0
# Threads for `asyncio.to_thread` in task bodies; sync tasks have their own, bounded by the slots.
_BLOCKING_THREADS = 64


class SoftLimitError(asyncio.CancelledError, SoftTimeLimitExceeded):  # type: ignore[misc]  # billiard has no types
    """What a body sees at its soft limit.

    Caught as `SoftTimeLimitExceeded`, yet unwound by `TaskGroup` and `timeout` like a cancellation.
    """


class Why(enum.Enum):
    """Why a job is being cancelled."""

    SOFT_LIMIT = enum.auto()
    HARD_LIMIT = enum.auto()
    REVOKED = enum.auto()
    DROPPED = enum.auto()


@dataclass(eq=False, weakref_slot=True, slots=True)
class Job:
    """One task on its way through the pool; what `apply_async` returns."""

    task_id: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    is_async: bool
    on_accept: Callable[..., Any]
    on_success: Callable[..., Any]
    on_error: Callable[..., Any]
    on_timeout: Callable[..., Any]
    on_terminate: Callable[[Job], None]
    soft_seconds: float | None
    hard_seconds: float | None
    task: asyncio.Task[None] | None = None
    why: Why | None = None
    started: bool = False
    reported: bool = False

    def terminate(self, signal: Any = None) -> None:
        """Stop the job: Celery's request calls it when it is revoked, whether it runs or still waits."""
        self.on_terminate(self)

    def translate(self, error: BaseException) -> BaseException:
        """The exception the body is to see in place of one that came from outside."""
        if self.why is not Why.SOFT_LIMIT or not isinstance(error, asyncio.CancelledError):
            return error
        self.why = None
        if self.task is not None:
            self.task.uncancel()  # the body may catch it and go on
        return SoftLimitError(self.soft_seconds)

    def report_of_cancellation(self) -> Report | None:
        """What the request is told about a job that was cancelled; None for nothing."""
        match self.why:
            case Why.HARD_LIMIT:
                return self.on_timeout, (False, self.hard_seconds)
            case Why.REVOKED:
                return self.on_error, (_error_info(Terminated(signals_of_os.SIGTERM)),)
            case Why.DROPPED:
                return None  # the message stays unacknowledged, or its run is another worker's now
            case _:
                error = RuntimeError(f"task {self.task_id} was cancelled by its own code")
                return self.on_error, (_error_info(error),)


class AsyncioPool(BasePool):  # type: ignore[misc]  # celery ships no types
    """One event loop in a thread of the worker process, and the slots that bound what executes.

    A task is accepted (hence acknowledged early, and started in Flower) when it gets its slot. A hard limit
    or a revoke cancels an `async def` body; a sync body in a thread cannot be stopped, so it is reported and
    its result dropped, and it keeps its slot until it returns. A soft limit reaches `async def` bodies only.

    Attributes:
        loop: The event loop, from `start` on, which runs in `loop_thread`.
        slots: What executes; `slots.limit` is `-c`.
        threads: Daemon threads of sync tasks.
        on_drain: Called once, on the thread that ends the worker, at the very beginning of the end.
    """

    signal_safe = False
    body_can_be_buffer = True

    #: A worker process of its own: process-wide settings and Celery's process signals are ours.
    owns_process = True
    #: How long a cold end waits for cancelled bodies.
    terminate_seconds = _UNWIND_SECONDS

    loop: asyncio.AbstractEventLoop
    threads: DaemonThreads

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_drain: list[Callable[[], None]] = []
        self._mailbox = Mailbox(direct=bool(self.options.get("threads")))
        self.slots = Slots(self.limit, on_change=self._mailbox.wake)
        self._jobs: set[Job] = set()
        self._is_draining = False
        self.loop_thread = LoopThread("polos-loop", initializer=lambda: self.app.set_current())
        # Two counters with one writer each (consumer, loop), so that neither needs a lock.
        self._applied = 0
        self._admitted = 0

    # -- what the rest of the worker uses

    @property
    def room(self) -> int:
        """How many more messages may be taken now: free slots no applied job will get. Consumer's thread."""
        return 0 if self._is_draining else self.slots.free - (self._applied - self._admitted)

    @property
    def is_draining(self) -> bool:
        """Whether the worker begins to end: nothing more is begun here."""
        return self._is_draining

    @property
    def is_polled(self) -> bool:
        """Whether calls can be posted to the consumer's thread: not where its transport cannot be polled."""
        return not self.options.get("threads")

    @property
    def in_flight(self) -> int:
        """Jobs applied and not yet reported."""
        return len(self._jobs)

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Have a function called on the consumer's thread, soon and in order; for any thread."""
        self._mailbox.post(function, *args)

    def run_coroutine(self, coro: Coroutine[Any, Any, T], timeout_seconds: float | None = None) -> T:
        """Run a coroutine on the loop and return its result; see `LoopThread.run`."""
        return self.loop_thread.run(coro, timeout_seconds)

    # -- life, on the consumer's thread

    def register_with_event_loop(self, hub: Any) -> None:
        """Celery's hook: the consumer's hub is (again) up."""
        self._mailbox.register(hub)

    def on_start(self) -> None:
        """Celery's hook: start the loop."""
        if self.owns_process:
            # At the default 5 ms a busy loop starves the other threads of this process for seconds:
            # heartbeat, database writer, this consumer (measured: 1 to 2 operations a second).
            sys.setswitchinterval(0.0005)
            signals.worker_shutting_down.connect(self._mailbox.wake)
        self.loop_thread.start()
        self.loop = self.loop_thread.loop
        self.threads = DaemonThreads("polos-task", limit=self.limit, initializer=self.app.set_current)
        self.loop.set_default_executor(
            DaemonThreads("polos-blocking", limit=_BLOCKING_THREADS, initializer=self.app.set_current)
        )
        if self.owns_process:
            signals.worker_process_init.send(sender=(self.options.get("initargs") or (None, None))[1])

    def on_close(self) -> None:
        """Celery's hook: the worker begins to end, warm or cold."""
        self._begin_drain()

    def on_stop(self) -> None:
        """Celery's hook: wait for all that executes."""
        self._begin_drain()
        self._on_loop(self._drop_waiting)
        while self._jobs:
            self._mailbox.drain(timeout_seconds=0.1)
        self._end_loop(timeout_seconds=10.0)

    def on_terminate(self) -> None:
        """Celery's hook: cancel what executes and report nothing of it."""
        self._begin_drain()
        self._on_loop(self._drop_all)
        deadline = time.monotonic() + self.terminate_seconds
        while self._jobs and time.monotonic() < deadline:
            self._mailbox.drain(timeout_seconds=0.02)
        self._end_loop(timeout_seconds=self.terminate_seconds)

    def flush(self) -> None:
        """Celery's hook: the broker connection is gone, and with it the messages nobody accepted yet."""
        self._on_loop(self._drop_waiting)

    def _begin_drain(self) -> None:
        if self._is_draining:
            return
        self._is_draining = True
        for hook in self.on_drain:
            try:
                hook()
            except Exception:
                # The worker ends whatever a hook does, and the other hooks have work to hand back.
                logger.exception("asyncio pool: drain hook %r failed", hook)

    def _end_loop(self, timeout_seconds: float) -> None:
        if not self.loop_thread.is_alive:
            return
        self.loop_thread.stop(timeout_seconds)
        self.threads.shutdown()
        self._mailbox.close()

    def _on_loop(self, function: Callable[..., Any], *args: Any) -> None:
        self.loop_thread.call(function, *args)

    # -- a job, from the consumer's thread to the loop's and back

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = (),
        kwargs: Any = None,
        callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        timeout_callback: Callable[..., Any] | None = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        correlation_id: str = "",
        **_: Any,
    ) -> Job:
        """Celery's hook: run a task; the callbacks are called on the consumer's thread."""
        job = Job(
            task_id=correlation_id,
            target=functools.partial(target, **kwargs) if kwargs else target,
            args=tuple(args),
            is_async=bool(args) and getattr(self.app.tasks.get(args[0]), "is_async", False),
            on_accept=accept_callback or _ignore,
            on_success=callback or _ignore,
            on_error=error_callback or _ignore,
            on_timeout=timeout_callback or _ignore,
            on_terminate=functools.partial(self._on_loop, self._revoke),
            soft_seconds=soft_timeout or self.options.get("soft_timeout"),
            hard_seconds=timeout or self.options.get("timeout"),
        )
        if not self._is_draining:  # else the message stays unacknowledged and goes back to its queue
            self._jobs.add(job)  # the request keeps but a weak reference
            self._applied += 1
            self._on_loop(self._spawn, job)
        return job

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Celery's hook, with our process id for every job: `Job.terminate`, called next, does the work."""

    def _spawn(self, job: Job) -> None:
        job.task = self.loop.create_task(self._run(job), name=f"task-{job.task_id}")
        job.task.add_done_callback(functools.partial(self._has_ended, job))

    def _has_ended(self, job: Job, task: asyncio.Task[None]) -> None:
        """Put away also what was cancelled before its first step, of which `_run` never knew."""
        if task.cancelled():
            self._admitted += 1
            self._report(job, job.report_of_cancellation())

    async def _run(self, job: Job) -> None:
        slot: Slot | None = None
        report: Report | None
        try:
            slot = await self._admit(job)
            report = await self._execute(job)
        except asyncio.CancelledError:
            report = job.report_of_cancellation()
        finally:
            if slot is not None:
                slot.close()  # before the report, which wakes the consumer to look for a free slot
        self._report(job, report)

    async def _admit(self, job: Job) -> Slot:
        try:
            await self.slots.acquire()
        finally:
            self._admitted += 1
        slot = Slot(self.slots)
        if job.task_id in worker_state.revoked:
            job.why = Why.REVOKED
            slot.close()
            raise asyncio.CancelledError
        enter_slot(slot)
        job.started = True
        self._mailbox.post(job.on_accept, os.getpid(), time.monotonic())
        return slot

    async def _execute(self, job: Job) -> Report:
        timers = self._arm(job)
        try:
            if job.is_async:
                value = await in_greenlet(functools.partial(job.target, *job.args), translate=job.translate)
            else:
                value = await asyncio.wrap_future(self.threads.submit(job.target, *job.args))
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the request is told: Reject, MemoryError, a broken tracer
            return job.on_error, (ExceptionInfo(),)
        except BaseException as error:  # noqa: BLE001 - stock pools report these as a lost worker, too
            return job.on_error, (_error_info(WorkerLostError(repr(error))),)
        finally:
            for timer in timers:
                timer.cancel()
        return job.on_success, (value,)

    def _report(self, job: Job, report: Report | None) -> None:
        if job.reported:
            return
        job.reported = True
        if report is not None:
            function, args = report
            self._mailbox.post(function, *args)
        self._mailbox.post(self._jobs.discard, job)

    # -- limits and cancellation, on the loop's thread

    def _arm(self, job: Job) -> list[asyncio.TimerHandle]:
        timers = []
        if job.soft_seconds:
            timers.append(self.loop.call_later(job.soft_seconds, self._on_soft_limit, job))
        if job.hard_seconds:
            timers.append(self.loop.call_later(job.hard_seconds, self._cancel, job, Why.HARD_LIMIT))
        return timers

    def _on_soft_limit(self, job: Job) -> None:
        self._mailbox.post(job.on_timeout, True, job.soft_seconds)
        if job.is_async and job.task is not None:
            job.why = Why.SOFT_LIMIT
            job.task.cancel()

    def _cancel(self, job: Job, why: Why) -> None:
        if job.reported or job.task is None:
            return
        job.why = why
        if job.started and not job.is_async:
            self._report(job, job.report_of_cancellation())  # a thread cannot be stopped
            return
        job.task.cancel()
        self.loop.call_later(_UNWIND_SECONDS, self._insist, job)

    def _revoke(self, job: Job) -> None:
        self._cancel(job, Why.REVOKED)

    def _insist(self, job: Job) -> None:
        if job.task is None or job.task.done():
            return
        # The body swallowed its cancellation, as network clients do now and then. It is reported now, but
        # keeps its slot until it ends.
        self._report(job, job.report_of_cancellation())
        job.task.cancel()
        self.loop.call_later(_UNWIND_SECONDS, self._insist, job)

    def _drop_waiting(self) -> None:
        for job in list(self._jobs):
            if not job.started:
                self._cancel(job, Why.DROPPED)

    def _drop_all(self) -> None:
        self.slots.lift()
        for job in list(self._jobs):
            self._cancel(job, Why.DROPPED)

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "loop": type(self.loop).__module__.partition(".")[0],
            "slots-free": self.slots.free,
            "slots-waiting": self.slots.waiting,
            "in-flight": self.in_flight,
            "processes": [os.getpid()],
        }


def _error_info(error: BaseException) -> Any:
    try:
        raise error
    except BaseException:  # noqa: BLE001 - ExceptionInfo reads the exception being handled
        return ExceptionInfo()


def _ignore(*_: Any) -> None:
    """A callback nobody asked for."""
