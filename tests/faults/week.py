"""The short forms of all scenarios, a few at a time, beside the tests that read the reports."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

from arena import Report
from repertoire import SCENARIOS, Setting

AT_ONCE = 5  # most of their time is waiting
Wanted = tuple[str, str]  # scenario, database


class Week:
    """The reports, as they come."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self.reports: dict[Wanted, Future[Report]] = {each: Future() for each in wanted}
        self._playing: tuple[asyncio.AbstractEventLoop, asyncio.Task[None] | None] | None = None

    async def play(self, folder: Path, create_database: Callable[[], str]) -> None:
        """Play all that is wanted, the longest first."""
        self._playing = asyncio.get_running_loop(), asyncio.current_task()
        setting = Setting(folder, create_database)
        await setting.refer()
        turns = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._one(each, turns, setting) for each in self.reports))

    async def _one(self, wanted: Wanted, turns: asyncio.Semaphore, setting: Setting) -> None:
        name, database = wanted
        async with turns:
            try:
                report = await setting.play(SCENARIOS[name], database, SCENARIOS[name].short)
            except Exception as error:
                self.reports[wanted].set_exception(error)
            else:
                self.reports[wanted].set_result(report)

    def stop(self) -> None:
        """Play no further; what was hired and started is ended."""
        if self._playing is not None and (task := self._playing[1]) is not None:
            with suppress(RuntimeError):  # all is played, and the loop closed
                self._playing[0].call_soon_threadsafe(task.cancel)

    def fail(self, error: BaseException) -> None:
        """Let nobody wait for what will not come."""
        for report in self.reports.values():
            if not report.done():
                report.set_exception(error)


@contextmanager
def week(wanted: Sequence[Wanted], *, folder: Path, create_database: Callable[[], str]) -> Iterator[Week]:
    """Play the wanted scenarios in a thread while the context lasts."""
    played = Week(wanted)
    os.environ.setdefault("FAULT_LEDGER", str(folder / "nobody.ledger"))  # we import the programs, too

    def play() -> None:
        try:
            asyncio.run(played.play(folder, create_database))
        except BaseException as error:
            played.fail(error)

    thread = threading.Thread(target=play, name="week", daemon=True)
    thread.start()
    try:
        yield played
    finally:
        played.stop()
        thread.join(60)
