"""Which asyncio tasks a run has, and whether all of them only wait for the journal.

Only then may its coroutine be thrown away: code in a real await, such as a payment call, never is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextvars import Context, ContextVar, copy_context
from types import FrameType
from typing import Any

Task = asyncio.Task[Any]
run_tasks: ContextVar[set[Task] | None] = ContextVar("polos_run_tasks", default=None)

# Helpers of asyncio that wait for tasks by a plain future: (module, name) of the innermost coroutine.
_WAIT = ("asyncio.tasks", "_wait")
_WAIT_FOR = ("asyncio.tasks", "wait_for")
_TASK_GROUPS = {("asyncio.taskgroups", "TaskGroup.__aexit__"), ("asyncio.taskgroups", "TaskGroup._aexit")}
_AS_COMPLETED = "_wait_for_one"
_BETWEEN_TASKS = {"asyncio.locks", "asyncio.queues"}  # modules whose waits are mostly for other tasks
_SETTLING_TURNS = 100  # loop turns given to a task that keeps going before pauses begin
_SETTLING_PAUSE_SECONDS = 0.001
# Through gather, wait or a task group the end of one task reaches another by callbacks, one loop turn each.
_QUIET_TURNS = 6


class DurableFuture(asyncio.Future[Any]):
    """What a run awaits when only the journal can answer."""


Kinds = type[asyncio.Future[Any]] | tuple[type[asyncio.Future[Any]], ...]


def install_task_factory(loop: asyncio.AbstractEventLoop) -> None:
    """Make `loop` note every task a run creates, keeping the factory it has; harmless when done before."""
    inner = loop.get_task_factory()
    if getattr(inner, "notes_run_tasks", False):
        return

    def create(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
        task: Any = inner(loop, work, **options) if inner else asyncio.Task(work, loop=loop, **options)
        given: Context | None = options.get("context")
        tasks = (copy_context() if given is None else given).get(run_tasks)  # an empty context is falsy
        if tasks is not None:
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return task

    create.notes_run_tasks = True  # type: ignore[attr-defined]
    loop.set_task_factory(create)


def start_apart(work: Coroutine[Any, Any, Any], *, name: str | None = None) -> Task:
    """Start a task of the engine's own, which belongs to no run whoever caused it."""
    return asyncio.get_running_loop().create_task(work, name=name, context=Context())


def is_suspended(task: Task) -> bool:
    """Whether the task awaits something that has not happened yet."""
    waiter = waiter_of(task)
    return task.done() or (waiter is not None and not waiter.done())


def only_waits(tasks: Iterable[Task], kinds: Kinds = DurableFuture) -> bool:
    """Whether each task awaits a durable future, or others of these `kinds`, or tasks among `tasks`."""
    known = set(tasks)
    return all(task.done() or _waits_durably(task, known, kinds) for task in known)


def waits_indirectly(tasks: Iterable[Task]) -> bool:
    """Whether each task awaits as in `only_waits`, or a lock, queue or time limit of asyncio beside it."""
    known = set(tasks)
    return all(
        task.done() or _waits_durably(task, known, DurableFuture) or _waits_beside(task) for task in known
    )


def _waits_beside(task: Task) -> bool:
    places = [_place(frame) for frame in _frames(task)]
    return bool(places) and (places[-1][0] in _BETWEEN_TASKS or _WAIT_FOR in places)


async def settled(tasks: set[Task], goes_on: Callable[[], bool] = lambda: False) -> None:
    """Return when every task is done or suspended, and nothing is on its way to one.

    Args:
        tasks: Of a run.
        goes_on: Whether one of them awaits something of the engine, and then goes on by itself.
    """
    turns = quiet = 0
    while quiet < _QUIET_TURNS and (goes_on() or not all(_is_stuck(task) for task in tasks)):
        turns += 1
        await asyncio.sleep(0 if turns < _SETTLING_TURNS else _SETTLING_PAUSE_SECONDS)
        quiet = 0 if goes_on() or not all(is_suspended(task) for task in tasks) else quiet + 1


def _is_stuck(task: Task) -> bool:
    """Whether the task awaits what wakes it directly, and that has not happened."""
    waiter = waiter_of(task)
    return task.done() or (waiter is not None and _is_untouched(waiter))


def _is_untouched(waiter: asyncio.Future[Any]) -> bool:
    """Whether nothing has happened to what is awaited: it is of a kind that tells so."""
    if waiter.done():
        return False
    if isinstance(waiter, DurableFuture | asyncio.Task):
        return True
    children = getattr(waiter, "_children", None)  # of asyncio.gather
    return children is not None and all(_is_untouched(child) for child in children)


def waiter_of(task: Task) -> asyncio.Future[Any] | None:
    """Return what a suspended task awaits."""
    return getattr(task, "_fut_waiter", None)  # set by both implementations of Task; nothing public tells


def _waits_durably(task: Task, known: set[Task], kinds: Kinds) -> bool:
    waiter = waiter_of(task)
    if waiter is None or waiter.done():
        return False
    frames = list(_frames(task))
    if any(_place(frame) == _WAIT_FOR for frame in frames):
        return False  # its time limit goes on with the code, too
    return _is_durable(waiter, known, kinds) or _waits_for_tasks(task, frames, known, kinds)


def _is_durable(waiter: asyncio.Future[Any], known: set[Task], kinds: Kinds) -> bool:
    if isinstance(waiter, kinds) or waiter in known:
        return True
    children = getattr(waiter, "_children", None)  # of asyncio.gather
    return children is not None and all(
        child.done() or _is_durable(child, known, kinds) for child in children
    )


def _waits_for_tasks(task: Task, frames: list[FrameType], known: set[Task], kinds: Kinds) -> bool:
    """Whether the task is inside a helper of asyncio that waits, without limit, for tasks among `known`."""
    for frame in reversed(frames):
        if frame.f_code.co_name == _AS_COMPLETED:
            return any(other is not task and not other.done() for other in known)
        if _place(frame) == _WAIT:
            given = frame.f_locals
            waits_for = given["fs"] if given["timeout"] is None else ()
            return bool(waits_for) and all(
                each.done() or _is_durable(each, known, kinds) for each in waits_for
            )
        if _place(frame) in _TASK_GROUPS:
            return True  # a group waits for tasks of the run only
        if not frame.f_globals["__name__"].startswith("asyncio."):
            break
    return False


def _frames(task: Task) -> Iterator[FrameType]:
    """Return the frames of a suspended task's coroutines, the outermost first."""
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            yield frame
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)


def _place(frame: FrameType) -> tuple[str, str]:
    return frame.f_globals.get("__name__", ""), frame.f_code.co_qualname
