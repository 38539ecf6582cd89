"""All cases of a session, a few at a time, on both databases, beside the tests that read the reports."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from cases import Case
from model import model
from processes import PATHS
from services import Postgres, sqlite_url
from stage import Report, Stage

from polos.encryption import new_key

ENCRYPTED = new_key("kill9")  # on one of the databases: nothing that deaths do may depend on what values are
AT_ONCE = 6  # victims; most of their time is waiting until they are known to be dead
Wanted = tuple[str, Case]


class Rounds:
    """The reports, as they come."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self.reports: dict[Wanted, Future[Report]] = {each: Future() for each in wanted}
        self.stages: dict[str, Stage] = {}

    def fail(self, error: BaseException) -> None:
        """Let nobody wait for what will not come."""
        for report in self.reports.values():
            if not report.done():
                report.set_exception(error)

    async def play(self, settings: dict[str, dict[str, str]], folder: Path) -> None:
        """Play all cases on the databases of `settings`."""
        with model() as billed:
            os.environ.update(FAULT_MODEL_URL=billed.url)
            try:
                for name, environment in settings.items():
                    complete = {**environment, "FAULT_MODEL_URL": billed.url}
                    self.stages[name] = Stage(name, complete, folder, billed)
                await asyncio.gather(*(stage.begin() for stage in self.stages.values()))
                turns = asyncio.Semaphore(AT_ONCE)
                await asyncio.gather(*(self._one(each, turns) for each in self.reports))
            finally:
                await asyncio.gather(*(stage.end() for stage in self.stages.values()))

    async def _one(self, wanted: Wanted, turns: asyncio.Semaphore) -> None:
        name, case = wanted
        async with turns:
            try:
                report = await self.stages[name].play(case)
            except Exception as error:
                self.reports[wanted].set_exception(error)
            else:
                self.reports[wanted].set_result(report)


@contextmanager
def playing(
    wanted: Sequence[Wanted], *, folder: Path, postgres_server: Postgres, valkey_url: str
) -> Iterator[Rounds]:
    """Play the wanted cases in a thread while the context lasts."""
    rounds = Rounds(wanted)
    settings = {
        name: _environment(name, number, folder, postgres_server, valkey_url)
        for number, name in enumerate(sorted({name for name, _ in wanted}))
    }
    os.environ["FAULT_LEDGER"] = str(
        folder / "nobody.ledger"
    )  # this process imports the program, to start runs

    def play() -> None:
        try:
            asyncio.run(rounds.play(settings, folder))
        except BaseException as error:
            rounds.fail(error)

    thread = threading.Thread(target=play, name="faults", daemon=True)
    thread.start()
    try:
        yield rounds
    finally:
        thread.join(60)


def _environment(
    name: str, number: int, folder: Path, postgres_server: Postgres, valkey_url: str
) -> dict[str, str]:
    place = folder / name
    place.mkdir()
    url = sqlite_url(place) if name == "sqlite" else postgres_server.create_database()
    return {
        **({"POLOS_ENCRYPTION_KEYS": ENCRYPTED} if name == "postgresql" else {}),
        "POLOS_HOME": str(place / "home"),
        "POLOS_DATABASE_URL": url,
        "POLOS_BROKER_URL": f"{valkey_url}/{number}",
        "POLOS_REDIS_PREFIX": f"{name}:",
        "POLOS_IMPORTS": "fault_program",
        "POLOS_EMBEDDED_WORKER": "0",
        "POLOS_LOCAL_DELIVERY": "0",  # a case says which of the workers consumes what is rung
        "FAULT_LEDGER": str(place / "ledger"),
        "OPENAI_API_KEY": "sk-test-0123456789",
        "PYTHONPATH": PATHS,
    }
