from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from benches import Bench, open_bench, wait_until
from typer.testing import CliRunner

from polos.cli.demo import NOT_PROVEN, PROVEN
from polos.cli.main import app
from polos.demo.ledger import FINISHED, STARTED, Entry
from polos.demo.proof import Evidence, prove

needs_proc = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds processes in /proc")


# -- the whole demo


@dataclass(frozen=True)
class Told:
    """What the demo printed, and what it left."""

    code: int
    output: str
    living: list[int]
    files: list[str]

    def lines(self, pattern: str) -> list[str]:
        return [line for line in self.output.splitlines() if re.search(pattern, line)]


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    """The demo, in an environment that would mislead it: settings of a real installation and a key."""
    with open_bench() as bench:
        code, output = bench.run(
            "demo",
            TMPDIR=str(bench.folder),
            POLOS_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
            POLOS_BROKER_URL="redis://127.0.0.1:1/0",
            POLOS_DEPLOYMENT_ID="other",
            OPENAI_API_KEY="sk-must-not-be-used",
            OPENAI_BASE_URL="http://127.0.0.1:1/v1",
        )
        yield Told(code, output, bench.living(), os.listdir(bench.folder))


def test_demo_proves_its_claim_and_exits_0(told: Told) -> None:
    assert (told.code, told.output.splitlines()[-1]) == (0, PROVEN), told.output


def test_worker_that_owns_the_run_is_killed_in_the_middle_of_tools(told: Told) -> None:
    [coordinates] = told.lines("coordinates the run")
    [kill] = told.lines("kill -9")
    pid = re.search(r"kill -9 (\d+)", kill)
    assert pid is not None
    assert f"(pid {pid[1]})" in coordinates
    assert re.search(r"in the middle of [1-9]\d* tool calls?; [2-9] tool calls had finished", kill)


def test_other_worker_takes_over_within_seconds(told: Told) -> None:
    [line] = told.lines("takes the run over")
    seconds = re.search(r"([\d.]+) s after the kill", line)
    assert seconds is not None
    assert float(seconds[1]) < 6  # 3 on a machine that is not busy


def test_interrupted_tools_and_only_these_are_started_again(told: Told) -> None:
    [kill] = told.lines("kill -9")
    interrupted = re.search(r"in the middle of (\d+)", kill)
    assert interrupted is not None
    assert len(told.lines("started again on worker")) == int(interrupted[1])
    [tools] = told.lines("by their own ledger")
    assert f"started {8 + int(interrupted[1])} times, finished 8 times" in tools
    assert tools.endswith("no finished one ran twice.")


def test_each_model_call_is_made_once(told: Told) -> None:
    [line] = told.lines("request log")
    assert "3 requests for 3 recorded answers; no recorded call was made again" in line


@needs_proc
def test_no_process_and_no_file_is_left(told: Told) -> None:
    assert (told.living, told.files) == ([], [])


@needs_proc
def test_ctrl_c_ends_everything(bench: Bench) -> None:
    demo = bench.start("demo", TMPDIR=str(bench.folder))
    assert demo.stdout is not None
    line = next(line for line in demo.stdout if "Starting two Celery workers" in line)
    wait_until(lambda: len(bench.living()) >= 5)  # the demo, two workers, the server and its watcher
    demo.send_signal(signal.SIGINT)
    assert demo.wait(timeout=20) != 0, line
    assert bench.living() == []
    assert os.listdir(bench.folder) == []


# -- what it needs


def test_missing_stand_in_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llmock.testing", None)
    refused = CliRunner().invoke(app, ["demo"])
    assert (refused.exit_code, "polos[demo]" in refused.output) == (2, True)


def test_real_provider_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    refused = CliRunner().invoke(app, ["demo", "--provider", "openai"])
    assert (refused.exit_code, "OPENAI_API_KEY" in refused.output) == (2, True)


# -- the proof


def entry(event: str, call: str, pid: int = 1) -> Entry:
    return Entry(event, call, call.capitalize(), pid, 0.0)


# Oslo finishes, Lima is interrupted by the kill of process 1 and runs to its end on process 2.
LEDGER = (
    entry(STARTED, "oslo"),
    entry(STARTED, "lima"),
    entry(FINISHED, "oslo"),
    entry(STARTED, "lima", 2),
    entry(FINISHED, "lima", 2),
)
HONEST = Evidence(
    status="completed",
    attempts=2,
    killed=1,
    ledger=LEDGER,
    calls=2,
    turns=(1, 1),
    requests=("first", "second"),
)


def test_interrupted_tool_that_starts_again_is_no_problem() -> None:
    proof = prove(HONEST)
    assert proof.problems == []
    assert "2 calls, started 3 times, finished 2 times; 1 interrupted" in proof.findings[0]


@pytest.mark.parametrize(
    ("doctored", "problem"),
    [
        ({"ledger": (*LEDGER, entry(STARTED, "oslo", 2), entry(FINISHED, "oslo", 2))}, "finished 2 times"),
        ({"ledger": (*LEDGER, entry(STARTED, "oslo", 2))}, "started again after it had finished"),
        ({"ledger": LEDGER[:-1]}, "started and never finished"),
        ({"ledger": LEDGER[:-2]}, "2 tool calls, but 1 finished"),
        (
            {"ledger": (*LEDGER, entry(STARTED, "rome"), entry(FINISHED, "rome"))},
            "2 tool calls, but 3 finished",
        ),
        ({"requests": ("first", "first", "second")}, "1 model calls were made again"),
        ({"requests": ("first", "second", "third")}, "3 requests for 2 recorded answers"),
        ({"requests": None, "turns": (2, 1)}, "3 model calls for 2 answers"),
        ({"requests": (), "turns": ()}, "no model call was recorded"),
        ({"attempts": 1}, "not taken over"),
        ({"killed": None}, "no worker was killed"),
        ({"status": "failed"}, "the run is failed"),
    ],
)
def test_doctored_evidence_proves_nothing(doctored: dict[str, object], problem: str) -> None:
    proof = prove(replace(HONEST, **doctored))  # type: ignore[arg-type]
    assert not proof.holds
    assert any(problem in found for found in proof.problems), proof.problems


def test_demo_whose_proof_fails_exits_1(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = prove(replace(HONEST, ledger=LEDGER[:-1]))
    monkeypatch.setattr("polos.cli.demo._show", lambda *_: failed)
    told = CliRunner().invoke(app, ["demo", "--provider", "stand-in"])
    assert told.exit_code == 1
    assert told.output.splitlines()[-1] == NOT_PROVEN
