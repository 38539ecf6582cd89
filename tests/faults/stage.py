"""One database with its survivor, and the course of a case: a run begins, a victim dies, the run ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cases import CASES, REFERENCES, Case
from celery import Celery
from ledger import Entry, Ledger
from model import Model
from processes import Worker
from sqlalchemy import bindparam, select

from polos.client import PolosClient
from polos.encryption import codec_of
from polos.journal.database import Connection, Database
from polos.journal.memory import M
from polos.journal.runs import READ_RUN, RUNS, R, run_record
from polos.journal.statements import Statement
from polos.journal.steps import READ_STEP_DETAILS, STEP_DETAILS
from polos.journal.workers import READ_WORKERS
from polos.settings import Settings

BOOT_SECONDS = 45.0
STRIKE_SECONDS = 45.0
RECOVERY_SECONDS = 15.0  # the promise is much shorter; this is a loaded machine's
BURIAL_SECONDS = 15.0  # until the victim is no longer in the list of workers
READ_TREE = Statement(select(*RUNS.c).where(R.root_id == bindparam("run")))

READ_MESSAGES = Statement(
    select(M.run_id, M.number, M.item).where(M.session_id == bindparam("session")).order_by(M.agent, M.number)
)


@dataclass
class Report:
    """What became of a case."""

    case: Case
    struck: bool = False
    ended: bool = False
    buried: bool = False
    recovery_seconds: float = 0.0
    run: dict[str, Any] = field(default_factory=dict)
    tree: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    ledger: list[Entry] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    messages: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)  # run, number, item
    victim: str = ""
    logs: str = ""


class Stage:
    """A database, a broker, a survivor. `begin` and `end` it."""

    def __init__(self, name: str, environment: dict[str, str], folder: Path, model: Model) -> None:
        self.name = name
        self.environment = environment
        self.model = model
        self.ledger = Ledger(environment["FAULT_LEDGER"])
        self.references: dict[str, Report] = {}
        self._folder = folder
        settings = Settings.from_environment(environment)
        self._client = PolosClient(settings=settings)
        codec = codec_of(settings.encryption_keys)
        self._journal: Connection = Database(settings.database_url, codec=codec).connect()
        self._app = Celery("faults", broker=environment["POLOS_BROKER_URL"], set_as_current=False)
        self._queues = [queue for case in (*CASES, *REFERENCES.values()) for queue in case.every_queue]
        self.survivor = Worker(f"survivor-{name}@here", [f"{name}.idle", *self._queues], environment, folder)

    async def begin(self) -> None:
        """Wait for the survivor, and run each kind of work once without a fault."""
        await self._registered(self.survivor, self.survivor.name)
        await self._leaves(self.survivor.name, self._queues)
        for kind, case in REFERENCES.items():
            await self._survivor_takes([*case.queues["victim"], *case.queues["survivor"]])
            run_id = await self._invoke(case)
            self.references[kind] = await self._to_its_end(Report(case), run_id, BOOT_SECONDS)

    async def end(self) -> None:
        await self._client.close()
        await asyncio.to_thread(self.survivor.retire)
        self._journal.close()

    async def play(self, case: Case) -> Report:
        """Run a case and report, whatever goes wrong."""
        marker = self._folder / f"{case.id}-{self.name}.struck"
        report = Report(case, victim=f"{case.id}-{self.name}@here")
        await self._survivor_takes(case.queues["survivor"])
        victim = Worker(report.victim, case.queues["victim"], self._of_victim(case, marker), self._folder)
        try:
            await self._registered(victim, report.victim)
            await self._leaves(report.victim, case.queues["survivor"])  # a worker takes all of a route
            run_id = await self._invoke(case)
            await self._until(lambda: not victim.lives, STRIKE_SECONDS, "no strike")
            report.struck = marker.exists()
            await self._survivor_takes(case.queues["victim"])
            await self._to_its_end(report, run_id, RECOVERY_SECONDS)
            report.recovery_seconds = max(float(report.run["finished_at"]) - marker.stat().st_mtime, 0.0)
            await self._until(lambda: report.victim not in self._worker_names(), BURIAL_SECONDS, "not buried")
            report.buried = True
        except TimeoutError as error:
            report.logs = f"{error}\n{self._tails(victim)}"
        finally:
            victim.end()
        return report

    # -- parts of a case

    async def _registered(self, worker: Worker, name: str) -> None:
        await self._until(
            lambda: name in self._worker_names() or not worker.lives, BOOT_SECONDS, f"{name} is not there"
        )
        assert worker.lives, f"{name} ended:\n{worker.log.read_text()[-3000:]}"

    def _of_victim(self, case: Case, marker: Path) -> dict[str, str]:
        fault = {"POLOS_FAULT": case.fault, "POLOS_FAULT_FILE": str(marker), "FAULT_CASE": case.id}
        return {**self.environment, **fault}

    async def _invoke(self, case: Case) -> str:
        from fault_program import definitions

        definition = definitions[case.id]
        payload = {"input": "Charge it", "streaming": False} if definition.workflow_type == "agent" else None
        handle = await self._client.invoke(definition.id, payload)
        return handle.id

    async def _to_its_end(self, report: Report, run_id: str, seconds: float) -> Report:
        await self._until(
            lambda: self._run(run_id)["finished_at"] is not None, seconds, f"run {run_id} goes on"
        )
        report.ended = True
        report.run = self._run(run_id)
        rows = self._journal.read(READ_TREE, {"run": run_id})
        report.tree = [run_record(row) for row in rows]
        for run in report.tree:
            found = self._journal.read(READ_STEP_DETAILS, {"run": run["id"]})
            names = [column.name for column in STEP_DETAILS]
            report.steps += [dict(zip(names, row, strict=True)) for row in found]
        session = self._journal.read(READ_MESSAGES, {"session": report.run["session_id"]})
        report.messages = [(run, number, json.loads(item)) for run, number, item in session]
        report.ledger = self.ledger.of(run_id)
        report.calls = self.model.calls_of(run_id)
        return report

    async def _survivor_takes(self, queues: list[str]) -> None:
        """Make the survivor consume more Celery queues, and return once it does."""
        await self._told(self.survivor.name, self._app.control.add_consumer, queues)
        await self._consumed(self.survivor.name, lambda consumed: consumed.issuperset(queues))

    async def _leaves(self, worker: str, queues: list[str]) -> None:
        """Make a worker consume these Celery queues no more, and return once it does not."""
        await self._told(worker, self._app.control.cancel_consumer, queues)
        await self._consumed(worker, lambda consumed: consumed.isdisjoint(queues))

    async def _told(self, worker: str, order: Callable[..., object], queues: list[str]) -> None:
        for queue in queues:
            async with asyncio.timeout(BOOT_SECONDS):
                while not await asyncio.to_thread(order, queue, destination=[worker], reply=True, timeout=1):
                    continue  # it has not connected yet

    async def _consumed(self, worker: str, as_told: Callable[[set[str]], bool]) -> None:
        """Wait until orders are carried out: a worker answers before, and orders in any order."""
        inspect = self._app.control.inspect([worker], timeout=1)
        async with asyncio.timeout(BOOT_SECONDS):
            while (answer := await asyncio.to_thread(inspect.active_queues)) is None or not as_told(
                {queue["name"] for queue in answer[worker]}
            ):
                await asyncio.sleep(0.03)

    def _run(self, run_id: str) -> dict[str, Any]:
        [row] = self._journal.read(READ_RUN, {"run": run_id})
        return run_record(row)

    def _worker_names(self) -> list[str]:
        return [row[1] for row in self._journal.read(READ_WORKERS, {})]

    def _tails(self, victim: Worker) -> str:
        logs = (victim.log, self.survivor.log)
        return "\n".join(f"--- {log}\n" + "\n".join(log.read_text().splitlines()[-15:]) for log in logs)

    async def _until(self, condition: Callable[[], object], seconds: float, problem: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{problem} after {seconds:g} s")
            await asyncio.sleep(0.03)
