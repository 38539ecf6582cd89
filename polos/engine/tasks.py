"""Which asyncio tasks a run has, and whether all of them only wait for the journal.

Only then may its coroutine be thrown away: code in a real await, such as a payment call, never is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextvars import Context, ContextVar, copy_context
from typing import Any

Task = asyncio.Task[Any]
run_tasks: ContextVar[set[Task] | None] = ContextVar("polos_run_tasks", default=None)

# Helpers of asyncio that wait for tasks by a plain future: (module, name) of the innermost coroutine.
_WAITING_FOR_TASKS = {
    ("asyncio.tasks", "_wait"),
    ("asyncio.taskgroups", "TaskGroup.__aexit__"),
    ("asyncio.taskgroups", "TaskGroup._aexit"),
}
_AS_COMPLETED = "_wait_for_one"
_SETTLING_TURNS = 100  # loop turns given to a task that keeps going before pauses begin
_SETTLING_PAUSE_SECONDS = 0.001


class DurableFuture(asyncio.Future[Any]):
    """What a run awaits when only the journal can answer."""


def install_task_factory(loop: asyncio.AbstractEventLoop) -> None:
    """Make `loop` note every task a run creates, keeping the factory it has."""
    inner = loop.get_task_factory()

    def create(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
        task: Any = inner(loop, work, **options) if inner else asyncio.Task(work, loop=loop, **options)
        context: Context = options.get("context") or copy_context()
        tasks = context.get(run_tasks)
        if tasks is not None:
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return task

    loop.set_task_factory(create)


def start_apart(work: Coroutine[Any, Any, Any], *, name: str | None = None) -> Task:
    """Start a task of the engine's own, which belongs to no run whoever caused it."""
    return asyncio.get_running_loop().create_task(work, name=name, context=Context())


def is_suspended(task: Task) -> bool:
    """Whether the task awaits something that has not happened yet."""
    waiter = _waiter(task)
    return task.done() or (waiter is not None and not waiter.done())


def only_waits(tasks: Iterable[Task]) -> bool:
    """Whether each task awaits a durable future, or tasks among `tasks`."""
    known = set(tasks)
    return all(task.done() or _waits_durably(task, known) for task in known)


async def settled(tasks: set[Task]) -> None:
    """Return when every task is done or suspended."""
    turns = 0
    while not all(is_suspended(task) for task in tasks):
        turns += 1
        await asyncio.sleep(0 if turns < _SETTLING_TURNS else _SETTLING_PAUSE_SECONDS)


def _waiter(task: Task) -> asyncio.Future[Any] | None:
    return getattr(task, "_fut_waiter", None)  # set by both implementations of Task; nothing public tells


def _waits_durably(task: Task, known: set[Task]) -> bool:
    waiter = _waiter(task)
    if waiter is None or waiter.done():
        return False
    return _is_durable(waiter, known) or _waits_for_tasks(task)


def _is_durable(waiter: asyncio.Future[Any], known: set[Task]) -> bool:
    if isinstance(waiter, DurableFuture) or waiter in known:
        return True
    children = getattr(waiter, "_children", None)  # of asyncio.gather
    return children is not None and all(child.done() or _is_durable(child, known) for child in children)


def _waits_for_tasks(task: Task) -> bool:
    """Whether the task is inside a helper of asyncio that waits for tasks it was given."""
    innermost: Any = task.get_coro()
    while (inner := getattr(innermost, "cr_await", None)) is not None:
        if getattr(innermost, "__qualname__", "").endswith(_AS_COMPLETED):
            return True
        if not hasattr(inner, "cr_code"):
            break
        innermost = inner
    frame = getattr(innermost, "cr_frame", None)
    module = frame.f_globals.get("__name__") if frame is not None else None
    return (module, getattr(innermost, "__qualname__", "")) in _WAITING_FOR_TASKS
