"""A Celery worker in a thread of the host process, which changes nothing there: no signals, no logging."""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import billiard.pool
from celery import Celery
from celery.exceptions import WorkerTerminate
from celery.worker import state
from celery.worker.worker import WorkController
from kombu.asynchronous import get_event_loop, set_event_loop

from polos.errors import ServiceUnavailableError
from polos.worker.intake import IntakeStep
from polos.worker.pool import AsyncioPool


class ThreadPool(AsyncioPool):
    """The asyncio pool inside somebody else's process."""

    owns_process = False
    # A flag of the whole process: True would make every `AsyncResult.get()` of the host raise.
    task_join_will_block = False
    # The host wants to exit; what is cut here is found again by the recovery.
    terminate_seconds = 0.3


class ThreadWorker(WorkController):  # type: ignore[misc]  # celery ships no types
    """A worker controller that leaves no trace in the process and lets errors out of `start`."""

    def __init__(self, *, on_drain: Callable[[], None] | None = None, **options: Any) -> None:
        self._is_ending = False
        with _host_state_kept(options["app"]):
            super().__init__(**options)
        if on_drain is not None:
            self.pool.on_drain.append(on_drain)

    def start(self) -> None:
        """Run until `request_end`; what breaks the worker is raised."""
        try:
            self.blueprint.start(self)
        except SystemExit:  # WorkerTerminate is one
            self._end()
        except BaseException:
            self._end()
            raise

    def request_end(self) -> None:
        """Have the worker end soon; callable from any thread."""
        if self._is_ending:
            return
        state.should_terminate = 0  # seen while it (re)connects, when no hub runs
        if self.hub is not None:  # there is none for transports that cannot be polled
            self.pool.post(self._raise_terminate)  # seen at once by a running hub

    def _raise_terminate(self) -> None:
        # The pool makes its last calls when it ends: raised there, it would cut the tidying up short.
        if not self._is_ending:
            raise WorkerTerminate(0)

    def _end(self) -> None:
        self._is_ending = True
        state.should_terminate = None  # or it is raised again in the middle of the tidying up
        self.terminate()

    def _shutdown(self, warm: bool = True) -> None:
        # Celery's own sets the default socket timeout of the whole process meanwhile.
        if self.blueprint is not None:
            self.blueprint.stop(self, terminate=not warm)
            self.blueprint.join()


class WorkerThread:
    """A Celery worker in a thread of this process; start, stop and start again as you like.

    One at a time per process: Celery keeps the state of a worker in module variables. It takes tasks through
    the asyncio pool, on daemon threads only, so that a blocking task never keeps the process from exiting.
    A process that ends without `stop` is drained before the interpreter shuts its threads down.

    Args:
        app: The Celery app; it need not be the current one.
        concurrency: How many tasks execute at once.
        queues: Celery queues to consume; None for all of the app's.
        name: Node name; `@` and the host name are added when it has none.
        on_drain: Called on the worker's thread at the beginning of its end, before tasks are cancelled.
    """

    def __init__(
        self,
        app: Celery,
        *,
        concurrency: int,
        queues: list[str] | None,
        name: str,
        on_drain: Callable[[], None] | None = None,
    ) -> None:
        self._app = app
        self._concurrency = concurrency
        self._queues = queues
        self._name = name if "@" in name else f"{name}@{socket.gethostname()}"
        self._on_drain = on_drain
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._worker: ThreadWorker | None = None
        self._is_registered = False
        self._error: BaseException | None = None

    @property
    def pool(self) -> AsyncioPool | None:
        """The pool while the worker runs."""
        worker = self._worker
        return None if worker is None else worker.pool

    @property
    def error(self) -> BaseException | None:
        """What broke the worker, if anything did."""
        return self._error

    @property
    def is_alive(self) -> bool:
        """Whether the worker's thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def start(self, timeout_seconds: float = 10) -> None:
        """Start the worker and return when it consumes; does nothing while it runs.

        Raises:
            ServiceUnavailableError: It did not consume in time, mostly because no broker answers.
        """
        if not self.launch():
            return
        if self._ready.wait(timeout_seconds) and self._error is None:
            return
        error = self._error
        self.stop()
        reason = f"failed with {error!r}" if error else f"was not ready within {timeout_seconds:g} seconds"
        raise ServiceUnavailableError(
            f"The worker thread {self._name!r} {reason}; is the broker at "
            f"{self._app.connection_for_read().as_uri()!r} running?"
        ) from error

    def launch(self) -> bool:
        """Start the worker and return at once, False when it runs; it consumes when its broker answers."""
        with self._lock:
            if self.is_alive:
                return False
            self._error = None
            self._ready.clear()
            state.should_stop = state.should_terminate = None
            self._drain_at_exit()
            self._thread = threading.Thread(target=self._run, name="polos-worker", daemon=True)
            self._thread.start()
            return True

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """Drain and end the worker; a second call, or one before `start`, does nothing.

        Callable from any thread, the worker's own too, which then does not wait. What has not ended in time
        is left to its daemon threads.
        """
        thread = self._thread
        if thread is None or not thread.is_alive():
            return
        worker = self._worker
        if worker is None:
            state.should_terminate = 0  # still being built: it ends when it first looks
        else:
            worker.request_end()
        if threading.current_thread() is not thread:
            thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            self._app.set_current()  # of this thread only
            self._app.finalize()
            self._app.steps["consumer"].add(IntakeStep)
            self._worker = self._build()
            self._worker.start()
        except BaseException as error:  # noqa: BLE001 - `start` and `error` tell it; a thread would only print it
            self._error = error
        finally:
            self._clean_up()
            self._ready.set()

    def _build(self) -> ThreadWorker:
        with_events = bool(self._app.conf.worker_send_task_events)
        return ThreadWorker(
            app=self._app,
            hostname=self._name,
            pool_cls=ThreadPool,
            concurrency=self._concurrency,
            queues=self._queues,
            loglevel="WARNING",
            ready_callback=lambda _consumer: self._ready.set(),
            without_mingle=True,
            without_gossip=True,
            without_heartbeat=not with_events,  # Flower takes a node without heartbeats for dead
            on_drain=self._on_drain,
        )

    def _clean_up(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            _disarm_finalizers(worker)
        state.should_terminate = None
        state.reset_state()

    def _drain_at_exit(self) -> None:
        if self._is_registered:
            return
        self._is_registered = True
        stop = weakref.WeakMethod(self.stop)
        try:
            # Earlier than atexit, whose functions run when no thread and no executor can be used any more.
            threading._register_atexit(_call_alive, stop)  # type: ignore[attr-defined]  # not in typeshed
        except AttributeError:
            watcher = threading.Thread(target=_stop_after_main, args=(stop,), name="polos-exit", daemon=False)
            watcher.start()


@contextlib.contextmanager
def _host_state_kept(app: Celery) -> Iterator[None]:
    """Put back what Celery's Hub step replaces: it assumes that a worker is alone in its process."""
    hub, lock, mutex = get_event_loop(), billiard.pool.Lock, app.clock.mutex
    set_event_loop(None)  # or the worker would run on somebody else's hub
    try:
        yield
    finally:
        set_event_loop(hub)
        billiard.pool.Lock = lock
        app.clock.mutex = mutex  # the host publishes, too


def _disarm_finalizers(worker: ThreadWorker) -> None:
    """Keep kombu from talking to the broker, which may be gone, when the interpreter exits."""
    connection = worker.consumer and worker.consumer.connection
    for channel in getattr(connection and connection._transport, "channels", None) or ():
        if channel._qos is not None:
            channel._qos._on_collect.cancel()


def _call_alive(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    call = method()
    if call is not None:
        call()


def _stop_after_main(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    threading.main_thread().join()
    _call_alive(method)
