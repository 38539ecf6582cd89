"""`runtime()`: everything a client can do, in memory, without services and without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from polos.client import PolosClient, as_default
from polos.engine.runtime import Models
from polos.settings import Settings
from polos.testing.answers import Answer
from polos.testing.clock import MovableClock
from polos.testing.memory import Memory, MemoryTransport
from polos.testing.model import ScriptedModel
from polos.testing.replays import content_of

Script = ScriptedModel | Models | Sequence[Answer] | Callable[..., Any]


class MemoryRuntime:
    """A runtime in memory; see `runtime`. Enter it once, with ``async with`` or ``with``.

    Attributes:
        client: Its client.
        clock: Its clock.
        model: What answers its agents.
    """

    def __init__(
        self,
        model: Script | None,
        clock: MovableClock | None,
        settings: Settings,
        journal: str | Path | None = None,
    ) -> None:
        self.clock = clock or MovableClock()
        self.model = _model(model)
        if isinstance(self.model, ScriptedModel):
            self.model.clock = self.clock
        content = None if journal is None else content_of(Path(journal), settings)
        self._memory = Memory(settings, self.model, self.clock, content)
        transport = MemoryTransport(self._memory, project_id=settings.project_id)
        self.client = PolosClient(project_id=settings.project_id, settings=settings, transport=transport)
        self._as_default = ExitStack()

    async def __aenter__(self) -> PolosClient:
        await self._memory.start()
        return self.open()

    async def __aexit__(self, *_: object) -> None:
        self._as_default.close()
        if self._memory.loop is asyncio.get_running_loop():
            await self._memory.stop()
            await self.client.close()
        else:
            await asyncio.to_thread(self.close)

    def __enter__(self) -> PolosClient:
        if _is_on_loop():
            raise RuntimeError("On an event loop a runtime is entered with 'async with'")
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> PolosClient:
        """Return the client, from now on that of calls without one, such as ``agent.run("text")``."""
        self._as_default.enter_context(as_default(self.client))
        return self.client

    def close(self) -> None:
        """End, called where no event loop runs."""
        self._as_default.close()
        loop = self._memory.loop
        if loop is None or loop.is_closed():
            self._memory.drop()
        elif loop.is_running():
            asyncio.run_coroutine_threadsafe(self._memory.stop(), loop).result()
        else:
            loop.run_until_complete(self._memory.stop())
        self.client.sync.close()


def runtime(
    model: Script | None = None,
    *,
    clock: MovableClock | None = None,
    settings: Settings | None = None,
    journal: str | Path | None = None,
    **values: Any,
) -> MemoryRuntime:
    """Return a runtime in memory; entered, it gives a `PolosClient` whose runs are executed in this process.

    ``async with runtime(model=["Hello!"]) as client:`` on an event loop: everything happens on that loop.
    ``with runtime(...) as client:`` where there is none: on the loop in a thread of the client's sync forms.

    The engine, journal and client are those of production, on SQLite in memory; the worker answers its
    doorbells itself, without Celery. All that this process defines is served, and nothing outlives the block.
    Within it the client is that of calls without one, too, such as ``agent.run("text")``.

    Args:
        model: What answers agents: a `ScriptedModel`, or the answers or the function to make one of. Without
            it, an agent that asks its model fails.
        clock: To move its time; by default one that just goes.
        settings: By default those of an empty environment: variables of the machine do not matter.
        journal: A file of ``polos runs export``: it begins with what is in there, and runs that have not
            ended go on. What they did is not done again, what they do next is done in this process.
        values: Single settings, by the names of the fields of `polos.settings.Settings`.

    Raises:
        TypeError: There is no such setting, or the script holds what is no answer.
        ConfigurationError: The journal cannot be read, or comes from a later version of polos.
    """
    return MemoryRuntime(model, clock, (settings or Settings()).with_values(**values), journal)


def _model(model: Script | None) -> Models:
    if model is None:
        return ScriptedModel([])
    if isinstance(model, str | bytes):
        raise TypeError(f"model={model!r} is no script: write a list of answers, [{model!r}]")
    return ScriptedModel(model) if isinstance(model, Sequence) or callable(model) else model


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
