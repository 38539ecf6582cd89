"""Whoever is around the runs: starts them, answers their questions, cancels some, reads along with some."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from arena import LOOK_AGAIN_SECONDS, PATIENCE_SECONDS, Arena
from sqlalchemy import select

from fuzz.programs import Ask, Cancelled, Job, everything
from fuzz.promises import ProgramRun
from polos.errors import ServiceUnavailableError
from polos.events import StreamEvent
from polos.journal.runs import RUNS, R
from polos.journal.statements import Statement
from polos.journal.steps import STEPS, S

_ASKED = Statement(
    select(R.root_id, R.id, S.name)
    .join_from(STEPS, RUNS, S.run_id == R.id)
    .where(S.kind == "suspend", S.seq.is_(None), R.finished_at.is_(None))
)


class People:
    """Use it as a context: what they do, they do in the background meanwhile."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._client = arena.client
        self._done: set[tuple[str, str]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.streams: dict[str, list[StreamEvent]] = {}

    async def __aenter__(self) -> People:
        self._in_background(self._look_after_questions(), "questions")
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def start(self, run: ProgramRun, key: str) -> str:
        """Start a run, and do with it what its promise says."""
        payload = Job(nodes=run.source.nodes).model_dump()
        root = await self._arena.accept("fuzz", payload, key, run)
        self._in_background(self._answer_early(root, run), "early")
        if run.cancelled_after is not None:
            self._in_background(self._cancel(root, run.cancelled_after), "cancel")
        if run.followed:
            self.streams[root] = []
            self._in_background(self._follow(root), f"follow {root}")
        return root

    async def have_read(self) -> None:
        """Return once all readers have got to the end; those who do not are a miss."""
        readers = [task for task in self._tasks if task.get_name().startswith("follow")]
        _, pending = await asyncio.wait(readers, timeout=PATIENCE_SECONDS) if readers else (set(), set())
        for task in pending:
            self._arena.miss("O6", "a reader did not get to the end", task.get_name().partition(" ")[2])

    # -- questions

    async def _look_after_questions(self) -> None:
        while True:
            for root, run_id, name in self._arena.read(_ASKED):
                await self._react(root, run_id, name)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _react(self, root: str, run_id: str, name: str) -> None:
        run = self._arena.accepted.get(root)
        if run is None or (root, name) in self._done:
            return
        node = dict(everything(run.source.nodes)).get(name.removesuffix("?"))
        with contextlib.suppress(ServiceUnavailableError):  # it is asked again, then
            match node:
                case Cancelled():
                    await self._client.cancel_execution(run_id)
                case Ask(answered="late"):
                    await self._answer(root, name, "first")
                case Ask(answered="twice"):
                    await self._answer(root, name, "first")
                    await asyncio.gather(*(self._answer(root, name, "second") for _ in range(2)))
            self._done.add((root, name))

    async def _answer(self, root: str, name: str, answer: str) -> None:
        await self._client.resume("fuzz", root, name, {"answer": answer})

    async def _answer_early(self, root: str, run: ProgramRun) -> None:
        """Answer before anybody asks, and once more."""
        for path, node in everything(run.source.nodes):
            if isinstance(node, Ask) and node.answered == "early":
                for answer in ("first", "second"):
                    await self._insisting(lambda p=path, a=answer: self._answer(root, p, a))  # type: ignore[misc]

    # -- others

    async def _cancel(self, root: str, after: float) -> None:
        await asyncio.sleep(after)
        await self._insisting(lambda: self._client.cancel_execution(root))

    async def _follow(self, root: str) -> None:
        """Read all that happens; one who is cut off goes on from the last event."""
        seen = self.streams[root]
        while True:
            try:
                async for event in self._client.follow(root, after=seen[-1].id if seen else None):
                    seen.append(event)
                return
            except ServiceUnavailableError:
                await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _insisting(self, do: Callable[[], Awaitable[Any]]) -> None:
        while True:
            try:
                await do()
                return
            except ServiceUnavailableError:
                await asyncio.sleep(LOOK_AGAIN_SECONDS)

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))


def some_cancelled(chance: random.Random, share: float, longest: float) -> Iterator[float | None]:
    """Yield for run after run when it is cancelled, None for most."""
    while True:
        yield chance.uniform(0.0, longest) if chance.random() < share else None
