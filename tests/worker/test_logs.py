from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nursery
import pytest
from celery.utils.log import ColorFormatter

from polos import PolosClient
from polos.current import at_place
from polos.logs import JsonFormatter, RunFilter, TextFormatter, tell_runs
from polos.settings import Settings
from polos.worker.logs import WorkerLogs

ROOT = Path(__file__).parents[2]


def record(message: str = "charged %s", *args: object, **values: Any) -> logging.LogRecord:
    made = logging.LogRecord("shop", logging.INFO, __file__, 1, message, args or ("ada",), None)
    made.__dict__.update(values)
    RunFilter("node@here").filter(made)
    return made


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter().format(made)
    assert "\n" not in line
    told = json.loads(line)
    assert isinstance(told, dict)
    return told


# -- one record


def test_json_line_tells_run_step_and_worker() -> None:
    with at_place("r1", "charge"):
        told = as_json(record())
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "INFO",
        "logger": "shop",
        "message": "charged ada",
        "run_id": "r1",
        "step": "charge",
        "worker": "node@here",
    }


def test_json_line_outside_a_run_names_none() -> None:
    assert {"run_id", "step"} & set(as_json(record())) == set()


def test_json_line_holds_the_traceback() -> None:
    try:
        raise ValueError("no such card")
    except ValueError:
        told = as_json(record(exc_info=sys.exc_info()))
    assert told["exception"].endswith("ValueError: no such card")


def test_run_id_that_the_program_gave_stays() -> None:
    with at_place("r1"):
        assert as_json(record(run_id="mine"))["run_id"] == "mine"


def test_text_has_run_and_step_at_the_end_of_the_message() -> None:
    formatter = TextFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
    with at_place("r1", "charge"):
        assert formatter.format(record()) == "[INFO] charged ada run=r1 step=charge"
    assert formatter.format(record()) == "[INFO] charged ada"


def test_text_does_not_repeat_a_run_that_the_message_names() -> None:
    with at_place("r1"):
        assert TextFormatter(logging.Formatter()).format(record("Run %s ended", "r1")) == "Run r1 ended"


def test_step_inside_another_place_ends_with_it() -> None:
    with at_place("r1"):
        with at_place("r1", "charge"):
            pass
        assert "step" not in as_json(record())


async def test_tasks_side_by_side_have_places_of_their_own() -> None:
    async def told(run_id: str) -> str:
        with at_place(run_id):
            await asyncio.sleep(0)
            return str(as_json(record())["run_id"])

    assert await asyncio.gather(told("r1"), told("r2")) == ["r1", "r2"]


# -- whose handlers


@pytest.fixture
def logger() -> logging.Logger:
    found = logging.Logger("of this test")
    found.addHandler(logging.StreamHandler())
    return found


def test_formatter_of_the_program_stays(logger: logging.Logger) -> None:
    [handler] = logger.handlers
    handler.setFormatter(own := logging.Formatter("%(message)s"))
    WorkerLogs("json")._on_logger(logger)
    assert (handler.formatter, handler.filters) == (own, [])


def test_formatter_of_celery_is_replaced(logger: logging.Logger) -> None:
    [handler] = logger.handlers
    handler.setFormatter(ColorFormatter("%(message)s"))
    WorkerLogs("json")._on_logger(logger)
    assert isinstance(handler.formatter, JsonFormatter)


def test_handler_of_the_program_may_tell_runs_too(logger: logging.Logger) -> None:
    [handler] = logger.handlers
    tell_runs(handler, "text", RunFilter())
    assert isinstance(handler.formatter, TextFormatter)


# -- a worker

PROGRAM = """
import logging
from polos import WorkflowContext, workflow

logger = logging.getLogger("shop")

def charge():
    logger.info("charging, in a thread")
    print("printed")

async def ship():
    logger.info("shipping")
    raise ValueError("out of stock")

@workflow
async def order(ctx: WorkflowContext, input: dict):
    logger.info("ordered")
    await ctx.step.run("charge", charge)
    try:
        await ctx.step.run("ship", ship, max_retries=0)
    except Exception:
        logger.exception("not shipped")
    logger.info("done")
"""


@contextlib.contextmanager
def worker(folder: Path, **environment: str) -> Iterator[nursery.Process]:
    (folder / "shop_program.py").write_text(PROGRAM)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLOS_")}
    process = nursery.start(
        [sys.executable, "-m", "celery", "-A", "polos", "worker", "-l", "info", "-n", "shop@here"],
        cwd=folder,
        env={
            **kept,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",  # Celery's about root, from before it sets logging up
            "POLOS_IMPORTS": "shop_program",
            **environment,
        },
        stdout=subprocess.DEVNULL,  # Celery's banner
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="polos-", ignore_cleanup_errors=True) as name:
        yield Path(name).resolve()  # not tmp_path: too long for a socket


async def test_worker_tells_the_run_and_the_step_of_each_line(folder: Path) -> None:
    """Of the program's own lines too, whether on the loop or in a thread; every line is JSON."""
    settings = Settings(home=folder / ".polos", embedded_worker="0")
    with worker(folder, POLOS_LOG_FORMAT="json") as process:
        async with PolosClient(project_id="default", deployment_id="default", settings=settings) as client:
            handle = await client.invoke("order", {})
            await client.wait(handle.id, timeout_seconds=60)
        process.terminate()
        _, output = await asyncio.to_thread(process.communicate, timeout=30)
    lines = [json.loads(line) for line in output.splitlines()]
    told = {line["message"]: line for line in lines if line["logger"] == "shop"}
    steps = {message: line.get("step") for message, line in told.items()}
    assert steps == {
        "ordered": None,
        "charging, in a thread": "charge",
        "shipping": "ship",
        "not shipped": None,
        "done": None,
    }
    assert {(line["run_id"], line["worker"]) for line in told.values()} == {(handle.id, "shop@here")}
    assert "out of stock" in told["not shipped"]["exception"]
    [printed] = [line for line in lines if line["message"] == "printed"]
    assert (printed["run_id"], printed["step"]) == (handle.id, "charge")
    assert any(line["logger"] == "polos.engine" and line.get("run_id") == handle.id for line in lines)
