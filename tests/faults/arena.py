"""One database and broker with a crew of workers, a model and runs: where a scenario takes place."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from broker_kinds import REDIS, Broker, open_broker
from crew import FORGOTTEN, Crew, name_of
from dumps import dump
from ledger import Ledger
from oracles import Evidence, Miss, Shape, check
from places import Site
from processes import PATHS, Worker
from promises import Promise, Wanted
from sqlalchemy import func, select
from week_model import paced_model
from week_program import AGENTS, WAIT_THRESHOLD_SECONDS

from polos.client import PolosClient
from polos.errors import JournalUnavailableError
from polos.journal.database import Connection, Database
from polos.journal.events import EVENTS, E
from polos.journal.memory import M
from polos.journal.runs import RUNS, R, run_record
from polos.journal.sqlite import SqliteConnection
from polos.journal.statements import Rows, Statement
from polos.journal.steps import STEPS, S, step_details
from polos.journal.workers import READ_WORKER_DETAILS, worker_details
from polos.settings import Settings

ModelOf = Callable[..., contextlib.AbstractContextManager[Any]]
BOOT_SECONDS = 60.0
PATIENCE_SECONDS = 180.0  # until the last run has ended, after the last fault, on a loaded machine
BURIAL_SECONDS = 30.0
LOOK_AGAIN_SECONDS = 0.05
_UNENDED = Statement(select(R.id).where(R.finished_at.is_(None)))
_ENDED = Statement(select(func.count()).where(R.finished_at.is_not(None), R.parent_id.is_(None)))
_RUNS = Statement(select(*RUNS.c).order_by(R.id))
_SAID = Statement(select(M.run_id, M.number, M.item).order_by(M.run_id, M.place))
_EVENTS = Statement(select(*EVENTS.c).order_by(E.topic, E.number))
_STEPS = Statement(select(*STEPS.c).order_by(S.run_id, S.name))


@dataclass(frozen=True)
class Plan:
    """The size of a scenario.

    Attributes:
        seconds: How long faults go on.
        pool: Celery's -P.
        broker: One of BROKERS.
        mix: Kinds of faults, where a scenario has several; all of them where none are named.
        copies: How many runs of each random program.
        at_once: Runs under way while faults go on.
    """

    workers: int
    runs: int
    seconds: float
    seed: int = 1
    pool: str = ""
    pace_seconds: float = 0.05
    slots: int = 8
    at_once: int = 20
    broker: str = REDIS
    mix: tuple[str, ...] = ()
    copies: int = 1


@dataclass
class Report:
    """What became of a scenario. `notes` are figures worth a look, misses what must not be."""

    scenario: str
    database: str
    broker: str = REDIS
    runs: int = 0
    succeeded: int = 0
    faults: int = 0
    calls_repeated: int = 0
    seconds: float = 0.0
    misses: list[Miss] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    dump: Path | None = None
    accepted: Mapping[str, Promise] = field(default_factory=dict)

    def __str__(self) -> str:
        notes = "; ".join(f"{name} {value}" for name, value in self.notes.items())
        return (
            f"{self.scenario:26} {self.database:10} {self.broker:8} {self.runs:5} {self.faults:6} "
            f"{self.calls_repeated:8} {len(self.misses):6} {self.seconds:7.1f}  {notes}"
        )


HEADINGS = (
    f"{'scenario':26} {'database':10} {'broker':8} {'runs':>5} {'faults':>6} {'repeated':>8} "
    f"{'misses':>6} {'seconds':>7}"
)


class Arena:
    """Where a scenario takes place. Use `open_arena`."""

    def __init__(
        self,
        environment: dict[str, str],
        *,
        plan: Plan,
        folder: Path,
        model: Any,
        broker: Broker,
        site: Site,
        references: Mapping[str, Shape],
    ) -> None:
        self.environment = environment
        self.plan = plan
        self.folder = folder
        self.model = model
        self.broker = broker
        self.database = Database(environment["POLOS_DATABASE_URL"])
        self.client = PolosClient(settings=Settings.from_environment(environment))
        pool = ["-P", plan.pool] if plan.pool else []
        options = ["-c", str(plan.slots), *pool]
        self.site = site
        self.crew = Crew(folder, environment, options=options, prefix_of=site.prefix_of)
        self.accepted: dict[str, Promise] = {}
        self.check: Callable[[Evidence], list[Miss]] = check
        self.references = references
        self.notes: dict[str, str] = {}
        self.misses: list[Miss] = []
        self.ledger = Ledger(environment["FAULT_LEDGER"])
        self.faults = 0  # besides strikes
        self._numbers = count(1)
        self._journal: Connection | None = None

    # -- workers

    async def hire(self, number: int = 1, **environment: str) -> list[Worker]:
        """Start workers and return once they serve."""
        workers = [self.crew.hire(**environment) for _ in range(number)]
        for worker in workers:
            await self.serving(worker)
        return workers

    async def serving(self, worker: Worker) -> None:
        await self.registered(worker)
        await self.until(
            lambda: " ready." in worker.log.read_text() or not worker.lives,
            BOOT_SECONDS,
            f"{worker.name} does not serve",
        )

    async def registered(self, worker: Worker) -> None:
        await self.until(
            lambda: worker.name in self.worker_names() or not worker.lives,
            BOOT_SECONDS,
            f"{worker.name} is not there",
        )
        assert worker.lives, f"{worker.name} ended:\n{worker.log.read_text()[-3000:]}"

    async def exited(self, worker: Worker, seconds: float) -> int | None:
        """Return a worker's exit code once it has ended, None when it does not within `seconds`."""
        with contextlib.suppress(TimeoutError):
            await self.until(lambda: worker.exit_code is not None, seconds, "still there")
        return worker.exit_code

    def worker_names(self) -> list[str]:
        return [row["hostname"] for row in self.workers()]

    def workers(self) -> list[dict[str, Any]]:
        return [worker_details(row) for row in self.read(READ_WORKER_DETAILS)]

    # -- runs

    async def start(self, program: str) -> str:
        """Have a run accepted, however often that takes; return its id."""
        return await self._start(Wanted(program, next(self._numbers)))

    async def start_again(self, run: str) -> str:
        """Have a run accepted again of which the journal knows nothing any more; return its new id."""
        lost = self.accepted.pop(run)
        assert isinstance(lost, Wanted)
        return await self._start(lost)

    async def _start(self, wanted: Wanted) -> str:
        program, number = wanted.program, wanted.number
        is_agent = program in AGENTS
        payload = {"input": f"Order {number}", "streaming": False} if is_agent else {"number": number}
        return await self.accept(program, payload, f"{program}-{number}", wanted)

    async def accept(self, workflow: str, payload: Any, key: str, promise: Promise, **options: Any) -> str:
        """Have a run with a `Promise` accepted, however often that takes; return its id."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                handle = await self.client.invoke(workflow, payload, idempotency_key=key, **options)
                break
            except JournalUnavailableError:
                assert time.monotonic() < deadline, "no run was accepted for too long"
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
        self.accepted[handle.id] = promise
        return handle.id

    async def start_many(self, programs: Sequence[str], number: int) -> list[str]:
        """Start runs of these programs in turn."""
        return [await self.start(programs[place % len(programs)]) for place in range(number)]

    @contextlib.asynccontextmanager
    async def load(self, programs: Sequence[str]) -> AsyncIterator[None]:
        """Keep as many runs under way as the plan wants while the context lasts."""
        feeding = asyncio.create_task(self._feed(programs))
        try:
            yield
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        if not feeding.cancelled() and (error := feeding.exception()) is not None:
            raise error

    async def _feed(self, programs: Sequence[str]) -> None:
        at_once = self.plan.at_once
        for number in range(self.plan.runs):
            await self.until(lambda: self.unended < at_once, PATIENCE_SECONDS, f"{at_once} runs do not end")
            await self.start(programs[number % len(programs)])

    @property
    def unended(self) -> int:
        """How many accepted runs have not ended, children not counted."""
        return len(self.accepted) - int(self.read(_ENDED)[0][0])

    async def all_ended(self, seconds: float = PATIENCE_SECONDS) -> bool:
        """Return once every run has ended; False when that takes too long, which the oracles report."""
        try:
            await self.until(lambda: self.unended <= 0 and not self.read(_UNENDED), seconds, "runs go on")
        except TimeoutError:
            return False
        return True

    async def is_writable(self) -> bool:
        """Whether the journal can be written to; a stopped process may hold SQLite's only lock."""
        if not self.database.is_sqlite:
            return True
        connection = SqliteConnection(self.database.path, self.database.dialect, sync="normal")
        try:
            await self.until(lambda: connection.take_turn(blocking=False), 5.0, "locked")
        except TimeoutError:
            return False
        else:
            connection.end_turn()
            return True
        finally:
            connection.close()

    async def nobody_else_is_listed(self, workers: Iterable[Worker]) -> None:
        """Wait until those who are not among `workers`, dead or gone, are no longer listed."""
        names = {worker.name for worker in workers}
        try:
            await self.until(lambda: set(self.worker_names()) <= names, BURIAL_SECONDS, "still listed")
        except TimeoutError:
            self.miss("O5", f"workers {self.worker_names()} are listed, of whom only {names} should be")

    # -- what is found out

    def miss(self, oracle: str, text: str, run: str = "") -> None:
        self.misses.append(Miss(oracle, run, text))

    def evidence(self) -> Evidence:
        return Evidence(
            accepted=dict(self.accepted),
            references=self.references,
            runs=[run_record(row) for row in self.read(_RUNS)],
            steps=[step_details(row) for row in self.read(_STEPS)],
            ledger=self.ledger.read(),
            calls=self.model.calls,
            strikes=list(self.crew.strikes),
            events=[dict(zip(EVENTS.c.keys(), row, strict=True)) for row in self.read(_EVENTS)],
            messages=[dict(zip(("run_id", "number", "item"), row, strict=True)) for row in self.read(_SAID)],
        )

    def verdict(self, report: Report) -> None:
        """Fill in what the oracles say."""
        evidence = self.evidence()
        self.misses += [*self.check(evidence), *self._wrongly_buried(), *self._ended_by_themselves()]
        report.runs, report.accepted = len(self.accepted), self.accepted
        roots = {run["id"]: run for run in evidence.runs if run["id"] in self.accepted}
        report.succeeded = sum(
            run["status"] == self.accepted[root].ends_as(run) for root, run in roots.items()
        )
        report.faults = (
            sum(strike.kind not in {"term", FORGOTTEN} for strike in self.crew.strikes) + self.faults
        )
        report.calls_repeated = evidence.calls_repeated
        report.notes, report.misses = self.notes, self.misses
        if self.misses:
            report.dump = dump(self.folder, evidence, self.misses, self.crew.logs(), self.environment)

    def _wrongly_buried(self) -> Iterator[Miss]:
        """Find workers that were declared dead and had only been slow."""
        for worker, log in self.crew.logs():
            if name_of(worker) not in self.crew.struck and "was declared dead" in log:
                yield Miss("alive", "", f"{worker.name} was declared dead and nobody had struck it")

    def _ended_by_themselves(self) -> Iterator[Miss]:
        for worker in self.crew.ended_by_themselves:
            tail = worker.log.read_text()[-1500:]
            yield Miss("alive", "", f"{worker.name} ended by itself ({worker.exit_code}):\n{tail}")

    # -- the journal, also while it is away now and then

    def read(self, statement: Statement, **params: object) -> Rows:
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                if self._journal is None:
                    self._journal = self.database.connect()
                return self._journal.read(statement, params)
            except JournalUnavailableError:
                self.disconnect()
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_AGAIN_SECONDS)

    def disconnect(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()

    async def until(self, condition: Callable[[], object], seconds: float, problem: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{problem} after {seconds:g} s")
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


@contextlib.asynccontextmanager
async def open_arena(
    *,
    plan: Plan,
    folder: Path,
    site: Site,
    settings: Mapping[str, str],
    references: Mapping[str, Shape],
    model_of: ModelOf = paced_model,
) -> AsyncIterator[Arena]:
    """Set an arena up and, whatever happens, leave no process behind."""
    with (
        model_of(pace_seconds=plan.pace_seconds * 2, address=site.address) as model,
        open_broker(plan.broker, folder, site.broker_host) as broker,
    ):
        environment = {
            "POLOS_HOME": str(folder / "home"),
            "POLOS_DATABASE_URL": site.database_url,
            **broker.environment,
            "POLOS_IMPORTS": "week_program",
            "POLOS_EMBEDDED_WORKER": "0",
            "OPENAI_API_KEY": "sk-test-0123456789",
            "FAULT_LEDGER": str(folder / "ledger"),
            "FAULT_MODEL_URL": model.url,
            "FAULT_PACE": str(plan.pace_seconds),
            "FAULT_SLEEP": str(max(plan.seconds, 0.3)),
            "POLOS_WAIT_THRESHOLD_SECONDS": str(WAIT_THRESHOLD_SECONDS),
            "PYTHONPATH": PATHS,
            **site.environment,
            **settings,
        }
        arena = Arena(
            environment,
            plan=plan,
            folder=folder,
            model=model,
            broker=broker,
            site=site,
            references=references,
        )
        try:
            yield arena
        finally:
            arena.crew.end()
            arena.disconnect()
            await arena.client.close()
