from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from benches import Bench, wait_until

from polos import PolosClient
from polos.demo.story import worker_pids
from polos.journal import schema
from polos.journal.database import Database
from polos.settings import Settings

PROGRAM = """
from polos import WorkflowContext, workflow

@workflow
async def double(ctx: WorkflowContext, input: dict):
    return {"doubled": await ctx.step.run("double", lambda: 2 * input["number"])}
"""


@pytest.fixture
def program(bench: Bench) -> Bench:
    (bench.folder / "numbers_program.py").write_text(PROGRAM)
    return bench


async def double(home: Path, number: int) -> object:
    settings = Settings.from_environment({"POLOS_HOME": str(home), "POLOS_EMBEDDED_WORKER": "0"})
    async with PolosClient(project_id="default", deployment_id="default", settings=settings) as client:
        handle = await client.invoke("double", {"number": number})
        record = await client.wait(handle.id, timeout_seconds=30)
        return record["result"]


def registered(home: Path) -> set[int]:
    """Return the process ids of the workers in a home's journal."""
    database = Database(f"sqlite:///{home}/polos.db")
    if schema.current_version(database) is None:
        return set()
    connection = database.connect()
    try:
        return set(worker_pids(connection).values())
    finally:
        connection.close()


async def test_worker_serves_the_module_it_is_given_and_ends_with_0_on_sigterm(program: Bench) -> None:
    worker = program.start("worker", "numbers_program", "--concurrency", "4", "--loglevel", "warning")
    assert await double(program.home, 21) == {"doubled": 42}
    worker.terminate()
    assert worker.wait(timeout=20) == 0


def test_all_processes_end_with_0_on_ctrl_c(program: Bench) -> None:
    command = program.start("worker", "--processes", "2", POLOS_IMPORTS="numbers_program")
    wait_until(lambda: len(registered(program.home)) == 2)
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=20) == 0
    wait_until(lambda: not program.living(), seconds=10)


def test_exit_code_is_1_when_a_process_was_lost(program: Bench) -> None:
    command = program.start("worker", "numbers_program", "--processes", "2")
    wait_until(lambda: len(registered(program.home)) == 2)
    lost, kept = registered(program.home)
    os.kill(lost, signal.SIGKILL)
    wait_until(lambda: lost not in program.living())
    assert kept in program.living()
    command.terminate()
    output, _ = command.communicate(timeout=20)
    assert command.returncode == 1
    assert f"Worker process {lost} ended by signal 9" in output


def test_module_that_cannot_be_imported_is_named(bench: Bench) -> None:
    code, output = bench.run("worker", "no_such_module")
    assert code == 2
    assert "no_such_module" in output
    assert "Traceback" not in output


def test_command_without_modules_says_how_to_name_them(bench: Bench) -> None:
    code, output = bench.run("worker")
    assert code == 2
    assert "polos worker my_agents" in output
    assert "POLOS_IMPORTS" in output


def test_unreachable_broker_is_named_without_its_password(program: Bench) -> None:
    url = "redis://:hunter2@127.0.0.1:1/0"
    code, output = program.run("worker", "numbers_program", POLOS_BROKER_URL=url)
    assert code == 2
    assert "redis://:***@127.0.0.1:1/0" in output
    assert "POLOS_BROKER_URL" in output
    assert "hunter2" not in output
    assert "Traceback" not in output


def test_unreachable_database_is_named_without_its_password(program: Bench) -> None:
    url = "postgresql://me:hunter2@127.0.0.1:1/runs"
    code, output = program.run("worker", "numbers_program", POLOS_DATABASE_URL=url)
    assert code == 2
    assert "postgresql://me:***@127.0.0.1:1/runs" in output
    assert "POLOS_DATABASE_URL" in output
    assert "hunter2" not in output
    assert "Traceback" not in output
