"""What happens to the demo's run: read from the journal and the tools' ledger again and again, and told."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from polos import serialization
from polos.demo.ledger import STARTED, Entry, finished_calls, read, running_calls
from polos.demo.proof import Evidence
from polos.demo.stage import Stage, Worker
from polos.journal.database import Connection
from polos.journal.runs import READ_RUN, run_record
from polos.journal.states import TERMINAL
from polos.journal.steps import READ_STEP_DETAILS, step_details
from polos.journal.workers import READ_WORKER_DETAILS, worker_details

MIN_FINISHED = 2  # tools that have finished when the worker is killed


@dataclass(frozen=True)
class Scene:
    """The run at one moment.

    Attributes:
        pids: Process of each registered worker, by worker id.
        turns: Steps that are model calls, in order.
        recorded: Tool calls whose outcome the journal has.
    """

    run: dict[str, Any]
    pids: dict[str | None, int]
    turns: list[dict[str, Any]]
    recorded: set[str]
    ledger: list[Entry]

    @property
    def owner_pid(self) -> int | None:
        """The process that coordinates the run, None while none does."""
        return self.pids.get(self.run["owner"])

    @property
    def has_ended(self) -> bool:
        """Whether the run is completed, failed or cancelled."""
        return self.run["status"] in TERMINAL

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The recorded answers of the model."""
        return [serialization.loads(turn["output"]) for turn in self.turns if turn["status"] == "completed"]

    def is_moment_to_kill(self, pid: int) -> bool:
        """Whether `pid` is in the middle of tools while some have finished and all of these are on record."""
        finished = finished_calls(self.ledger)
        is_on_record = len(finished) >= MIN_FINISHED and finished <= self.recorded
        return is_on_record and bool(running_calls(self.ledger, pid))

    def evidence(self, *, killed: Worker | None, requests: list[str] | None) -> Evidence:
        """Return what the end of the run is judged by."""
        return Evidence(
            status=self.run["status"],
            attempts=self.run["attempt"],
            killed=None if killed is None else killed.pid,
            ledger=self.ledger,
            calls=sum(len(answer["tool_calls"]) for answer in self.answers),
            turns=[turn["tries"] - _failures(turn) for turn in self.turns if turn["status"] == "completed"],
            requests=requests,
        )


def _failures(turn: dict[str, Any]) -> int:
    return len(serialization.loads(turn["failures"])) if turn["failures"] else 0


def look(journal: Connection, stage: Stage, run_id: str) -> Scene:
    """Return the run as it is now."""
    run = run_record(journal.read(READ_RUN, {"run": run_id})[0])
    steps = [step_details(row) for row in journal.read(READ_STEP_DETAILS, {"run": run_id})]
    return Scene(
        run=run,
        pids=worker_pids(journal),
        turns=[step for step in steps if step["kind"] == "turn"],
        recorded={step["child_id"] for step in steps if step["child_id"] and step["status"] == "completed"},
        ledger=read(stage.ledger),  # last: what the tools have finished and the journal lacks must be seen
    )


def worker_pids(journal: Connection) -> dict[str | None, int]:
    """Return the process id of each registered worker, by worker id."""
    workers = [worker_details(row) for row in journal.read(READ_WORKER_DETAILS, {})]
    return {worker["id"]: worker["pid"] for worker in workers}


class Teller:
    """Prints what is new in each scene."""

    def __init__(self, console: Console, stage: Stage) -> None:
        self._console = console
        self._stage = stage
        self._began = time.monotonic()
        self._owner: int | None = None
        self._killed_at: float | None = None
        self._pids: dict[str | None, int] = {}
        self._asked_turns = 0
        self._answered_turns = 0
        self._asked_calls = 0
        self._told_entries = 0
        self._starts: Counter[str] = Counter()

    def say(self, text: str, style: str = "") -> None:
        """Print a line with the time since the beginning."""
        line = Text(f"{time.monotonic() - self._began:6.1f} s  ", style="dim")
        self._console.print(line.append(text, style=style), soft_wrap=True)

    def tell(self, scene: Scene) -> None:
        """Print what happened since the last scene."""
        self._pids.update(scene.pids)  # the killed one's is needed when its row has gone
        self._tell_owner(scene)
        self._tell_tools(scene)
        self._tell_turns(scene)
        self._tell_tools(scene)

    def tell_kill(self, worker: Worker, scene: Scene) -> None:
        """Print what was just done to a worker, and what it was doing."""
        self._killed_at = time.monotonic()
        finished, running = len(finished_calls(scene.ledger)), len(running_calls(scene.ledger, worker.pid))
        self.say(
            f"kill -9 {worker.pid}: {_name(worker)} is dead. It coordinated the run and was in the middle of "
            f"{_tools(running)}; {_tools(finished)} had finished.",
            "bold red",
        )

    def _tell_owner(self, scene: Scene) -> None:
        worker = self._stage.worker_of(scene.owner_pid)
        if worker is None or worker.pid == self._owner:
            return
        self._owner = worker.pid
        if self._killed_at is None:
            self.say(f"{_name(worker)} coordinates the run")
            return
        after = time.monotonic() - self._killed_at
        recorded = f"{_count(len(scene.answers), 'model answer')} and {_tools(len(scene.recorded))}"
        self.say(
            f"{after:.1f} s after the kill, {_name(worker)} takes the run over "
            f"(attempt {scene.run['attempt']}) and replays it; on record: {recorded}",
            "bold green",
        )

    def _tell_turns(self, scene: Scene) -> None:
        for number, turn in enumerate(scene.turns, 1):
            worker = self._stage.worker_of(self._pids.get(turn["owner"]))
            if number > self._asked_turns and worker is not None:
                self.say(f"turn {number}: {_name(worker)} asks the model", "cyan")
                self._asked_turns = number
            if number > self._answered_turns and turn["status"] == "completed":
                calls = len(scene.answers[number - 1]["tool_calls"])
                what = f"asks for {_tools(calls)}" if calls else "gives the answer"
                self.say(f"turn {number}: the model {what}", "cyan")
                self._answered_turns = number
                self._asked_calls += calls

    def _tell_tools(self, scene: Scene) -> None:
        for entry in scene.ledger[self._told_entries :]:
            if entry.call not in self._starts and len(self._starts) == self._asked_calls:
                return  # it was asked for in an answer that is still to be told
            self._told_entries += 1
            self._starts[entry.call] += entry.event == STARTED
            again = " again" if entry.event == STARTED and self._starts[entry.call] > 1 else ""
            worker = self._stage.worker_of(entry.pid)
            where = "" if worker is None else f" on {_name(worker)}"
            self.say(f"  get_weather {entry.city}: {entry.event}{again}{where}", "yellow" if again else "")


def _name(worker: Worker) -> str:
    return f"worker {worker.name} (pid {worker.pid})"


def _tools(count: int) -> str:
    return _count(count, "tool call")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
