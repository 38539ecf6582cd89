"""Where synchronous Celery meets the event loop.

A greenlet lets the tracer await, a mailbox calls on the consumer's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import queue
import socket
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

import greenlet
from celery import Celery, Task
from celery.utils.log import get_logger

T = TypeVar("T")
_Call = tuple[Callable[..., Any], tuple[Any, ...]]

logger = get_logger("celery.pool")


class _Bridge(greenlet.greenlet):  # type: ignore[misc]  # greenlet ships no types we load
    """The greenlet a tracer runs in."""

    def __init__(self, function: Callable[[], object], parent: Any) -> None:
        super().__init__(function, parent)
        # The body must see, and set, the context variables of the asyncio.Task around it.
        self.gr_context = parent.gr_context
        self.driving = False


class _Handed:
    """Hands a future that a coroutine already armed up to the asyncio.Task."""

    __slots__ = ("_future",)

    def __init__(self, future: Any) -> None:
        self._future = future

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self._future)


async def in_greenlet(
    function: Callable[[], T], *, translate: Callable[[BaseException], BaseException] | None = None
) -> T:
    """Return what a synchronous function returns that may wait with `await_` on the way.

    Args:
        function: Runs on the loop's thread; what it does besides `await_` blocks the loop.
        translate: Sees each exception that arrives from outside (a cancellation, mostly) and
            returns the one to raise in the body instead.
    """
    bridge = _Bridge(function, greenlet.getcurrent())
    result = bridge.switch()
    while not bridge.dead:
        try:
            value = await _Handed(result)
        except BaseException as error:  # noqa: BLE001 - a cancellation, too, belongs into the body
            result = bridge.throw(translate(error) if translate else error)
        else:
            result = bridge.switch(value)
    return result  # type: ignore[no-any-return]  # the last switch returns the function's value


def in_bridge() -> bool:
    """Whether `await_` may be called here."""
    return isinstance(greenlet.getcurrent(), _Bridge)


def await_(awaitable: Awaitable[T]) -> T:
    """Return an awaitable's result to synchronous code under `in_greenlet`; the loop goes on meanwhile.

    Raises:
        RuntimeError: Not under `in_greenlet`.
    """
    here = greenlet.getcurrent()
    if not isinstance(here, _Bridge):
        raise RuntimeError("await_() works only under in_greenlet(); in a coroutine write `await`")
    loop_side = here.parent
    steps: Any = awaitable.__await__()
    try:
        future = steps.send(None)
        while True:
            try:
                value = loop_side.switch(future)
            except BaseException as error:  # noqa: BLE001 - the coroutine decides what it catches
                future = steps.throw(error)
            else:
                future = steps.send(value)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # the awaitable's value


class Mailbox:
    """Calls that other threads want made on the consumer's thread: acknowledgements, events, worker state.

    It has a socket pair of its own. Calls handed to `hub.call_soon` would do, but an acknowledgement is
    itself `call_soon`ed, and from inside such a call it would wait for the next poll to end, up to a second.

    Args:
        direct: There is no hub (its transport cannot be polled): make calls at once, on the caller's thread.
    """

    def __init__(self, *, direct: bool) -> None:
        self._direct = direct
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._is_signalled = False
        self._hub: Any = None
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def register(self, hub: Any) -> None:
        """Read from this hub from now on; called again after each broker reconnect."""
        self._hub = hub
        hub.add_reader(self._reader, self._on_readable)

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Have a function called on the consumer's thread, soon and in order."""
        if self._direct:
            _call(function, args)
            return
        self._calls.put((function, args))
        self.wake()

    def wake(self, **_: Any) -> None:
        """Have the hub turn once: it looks again at slots and shutdown flags. Safe in a signal handler."""
        if self._is_signalled:
            return
        self._is_signalled = True
        with contextlib.suppress(OSError):  # the worker has ended, or enough bytes are waiting already
            self._writer.send(b"x")

    def drain(self, timeout_seconds: float = 0.0) -> None:
        """Make the posted calls here, waiting for the first one at most so long."""
        # Before reading the queue: who posts after this line signals again.
        self._is_signalled = False
        try:
            call = self._calls.get(timeout=timeout_seconds) if timeout_seconds else self._calls.get_nowait()
            while True:
                _call(*call)
                call = self._calls.get_nowait()
        except queue.Empty:
            return

    def close(self) -> None:
        """Make what was posted and let the sockets go."""
        self.drain()
        if self._reader.fileno() < 0:
            return
        if self._hub is not None:
            self._hub.remove_reader(self._reader)
        self._reader.close()
        self._writer.close()

    def _on_readable(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a nested call has read it
            self._reader.recv(4096)
        self.drain()


class ContextStack:
    """A `Task.request_stack` on a context variable: child asyncio tasks of a body see `self.request` too.

    Celery's own is keyed by greenlet, so that only the tracer's greenlet would see it.
    """

    def __init__(self, name: str) -> None:
        self._requests: contextvars.ContextVar[tuple[Any, ...]] = contextvars.ContextVar(
            f"celery_requests_{name}", default=()
        )

    def push(self, request: Any) -> None:
        """Make a request the current one."""
        self._requests.set((*self._requests.get(), request))

    def pop(self) -> Any:
        """Remove and return the current request; None when there is none."""
        requests = self._requests.get()
        self._requests.set(requests[:-1])
        return requests[-1] if requests else None

    @property
    def top(self) -> Any:
        """The current request, or None."""
        requests = self._requests.get()
        return requests[-1] if requests else None

    @property
    def stack(self) -> list[Any]:
        """All requests, the current one last."""
        return list(self._requests.get())

    def __len__(self) -> int:
        return len(self._requests.get())


class AsyncTask(Task):  # type: ignore[misc]  # celery ships no types
    """A Celery task whose `run` may be `async def`: use it as `base=`, or as an app's `task_cls`.

    On the asyncio pool the body runs on the pool's loop. On a stock pool, and with
    `task_always_eager`, `drive` runs it. Called directly (`task(...)`), it is a coroutine to await.
    """

    abstract = True
    is_async = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        run = cls.__dict__.get("run")
        if run is not None:
            cls._adopt(run)

    @classmethod
    def _adopt(cls, run: Any) -> None:
        body = getattr(run, "__func__", run)
        cls.is_async = inspect.iscoroutinefunction(body)
        if cls.is_async:
            is_static = isinstance(run, staticmethod)
            driver = _driver(body, owner=cls if is_static else None)
            cls.run = staticmethod(driver) if is_static else driver

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Celery's hook, called after it made its own request stack."""
        super().on_bound(app)
        if cls.is_async and not isinstance(cls.request_stack, ContextStack):
            cls.request_stack = ContextStack(cls.__name__)

    @classmethod
    def drive(cls, body: Coroutine[Any, Any, Any]) -> Any:
        """Run a body to its end where no loop of ours runs: stock pools and eager tasks."""
        return asyncio.run(body)

    @classmethod
    def _outcome(cls, body: Coroutine[Any, Any, Any]) -> Any:
        """The body's result if the tracer called it, the coroutine itself if user code did."""
        request = cls.request_stack.top
        if request is None or request.called_directly:
            return body
        bridge = greenlet.getcurrent()
        if isinstance(bridge, _Bridge):
            if bridge.driving and not request.is_eager:
                return body  # a body that calls its own task: not the tracer
            bridge.driving = True
            return await_(body)
        if not _loop_is_running():
            return cls.drive(body)
        if request.is_eager:
            body.close()
            raise RuntimeError(f"{cls.name!r} cannot run eagerly on a running event loop: await it instead")
        return body


def _driver(
    body: Callable[..., Coroutine[Any, Any, Any]], owner: type[AsyncTask] | None
) -> Callable[..., Any]:
    """A plain function in place of an async body, for the tracer to call."""

    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        task = owner or type(args[0])
        return task._outcome(body(*args, **kwargs))

    return run


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        function(*args)
    except Exception:
        # One request's failed report must not keep the others' acknowledgements. A broken broker
        # connection shows at the consumer's own next read.
        logger.exception("asyncio pool: callback %r failed", function)
