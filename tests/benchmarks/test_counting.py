"""What the benchmarks count, counted where the answer is known."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.counts import BACKGROUND, POSTGRES_CPU, RESIDENCY, WAL_BYTES, Meter, per_unit, residency
from benchmarks.ledger import Ledger
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.processes import cpu_seconds, family_cpu_seconds
from benchmarks.servers import Site
from benchmarks.waiting import journal_bytes
from benchmarks.workers import APP_OF_FLOOR, Fleet
from polos.journal.statements import Statement

BURNT_SECONDS = 0.1
BURN = f"import time\nwhile time.process_time() < {BURNT_SECONDS}: pass\n"
FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", sys.argv[1] + sys.argv[2]], stdin=subprocess.PIPE,
    stdout=subprocess.PIPE)
child.stdout.readline()
if sys.argv[3] == "ended":
    child.communicate()
print("burnt", flush=True)
sys.stdin.read()
"""
STAY = "print('burnt', flush=True)\nimport sys; sys.stdin.read()\n"


@contextmanager
def family(fate: str) -> Iterator[int]:
    """A process whose child has used a processor, and `fate` says what the child does then."""
    command = [sys.executable, "-S", "-c", FAMILY, BURN, STAY, fate]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"burnt\n"
        yield process.pid


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("fate", ["ended", "lives"])
def test_a_server_is_all_its_processes(fate: str) -> None:
    """PostgreSQL is a process for each connection; those that have ended have cost something, too."""
    with family(fate) as pid:
        assert family_cpu_seconds(pid) - cpu_seconds(pid) >= BURNT_SECONDS / 2


def test_no_process_has_used_nothing() -> None:
    assert family_cpu_seconds(1 << 30) == 0


@pytest.mark.parametrize("name", sorted({*RESIDENCY.values(), *BACKGROUND}))
def test_what_is_looked_for_by_name_is_a_statement_of_the_journal(name: str) -> None:
    """A name that has changed would be counted as zero for ever."""
    module, _, statement = name.partition(".")
    found = vars(import_module(f"polos.journal.{module}"))
    named = [found.get(prefix + statement.upper()) for prefix in ("", "_")]
    assert any(isinstance(value, Statement) for value in named)


def test_residency_is_claims_of_each_run() -> None:
    counts = Counter({"engine:runs.park": 3, "engine:runs.claim": 30, "engine:steps.read_steps": 2})
    assert residency(counts, runs=20) == {"parks": 3, "journal_reads": 2, "claims_per_run": 1.5}


def test_a_unit_of_work_costs_its_part_of_the_servers() -> None:
    costs = per_unit(Counter({POSTGRES_CPU: 2, WAL_BYTES: 5000}), 10)
    assert costs["postgres_cpu_ms"] == 200
    assert costs["wal_bytes"] == 500


def test_removed_rows_of_sqlite_take_no_room(tmp_path: Path) -> None:
    """The file stays as long as it was; its free pages are used again."""
    path = tmp_path / "some.db"
    url = f"sqlite:///{path}"
    driver = sqlite3.connect(path, isolation_level=None)
    driver.execute("CREATE TABLE some (text)")
    empty = journal_bytes(url)
    driver.executemany("INSERT INTO some VALUES (?)", [("x" * 1000,)] * 100)
    full = journal_bytes(url)
    driver.execute("DELETE FROM some")
    driver.close()
    assert full - empty > 100_000
    assert journal_bytes(url) == empty


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    site = Site("sqlite", tmp_path, "sqlite://", "sqlite://", "redis://127.0.0.1:1", None)
    return Bench(site, quick=True, repeats=3, model_url="", ledger=Ledger())


async def measured(bench: Bench, ours: Figures, floor: Figures) -> tuple[Result, list[str]]:
    """Measure figures that are known, in no worker; return who came when, too."""
    turns: list[str] = []
    result = Result("w0", "", "sqlite", True, "step", 1, {})
    meter = Meter(Fleet(bench.site, APP_OF_FLOOR, (), {}), bench.ledger, bench.site)

    async def polos() -> Figures:
        turns.append("polos")
        return ours

    async def raw() -> Figures:
        turns.append("floor")
        return floor

    await measure(bench, result, meter, polos, {"raw": raw}, counted=False)
    return result, turns


async def test_floor_and_polos_take_turns_at_being_first(bench: Bench) -> None:
    """What grows worse in the course of a measurement hits both."""
    _, turns = await measured(bench, {"speed": 1}, {"speed": 2})
    assert turns == ["floor", "polos", "polos", "floor", "floor", "polos"]


async def test_a_floor_need_not_have_every_figure(bench: Bench) -> None:
    result, _ = await measured(bench, {"speed": 1, "bytes": 7}, {"speed": 2})
    figures = result.line()["figures"]
    assert figures["speed"]["floors"]["raw"]["share"]["median"] == 0.5
    assert figures["bytes"]["floors"] == {}


async def test_a_figure_that_should_be_small_has_the_share_of_its_floor(bench: Bench) -> None:
    result, _ = await measured(bench, {"seconds": 4}, {"seconds": 1})
    result.goals = {"seconds": Goal(1, 1, less=True)}
    assert result.line()["figures"]["seconds"]["floors"]["raw"]["share"]["median"] == 0.25
