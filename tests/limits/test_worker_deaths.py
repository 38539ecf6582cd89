"""Workers that die between their place in line and the call, or while turns wait: nothing is stranded."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from models.servers import Answer, Recorder, chat_answer, recorder
from scripts import ROOT, Folder
from services import Postgres

from polos import PolosClient
from polos.cli.journal import find_database
from polos.journal.allowances import COUNT_WAITING_TURNS
from polos.settings import Settings
from polos.streaming.server import RedisServer

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def told() -> Iterator[Recorder]:
    with recorder() as running:
        running.answers(Answer(chat_answer("hello")))
        yield running


@pytest.fixture
def environment(
    told: Recorder, server: RedisServer, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    found = {
        "POLOS_SWEEP_SECONDS": "0.2",
        "POLOS_EMBEDDED_WORKER": "0",
        "POLOS_IMPORTS": "limited_program",
        "POLOS_MODEL_LIMITS": "groq/*=60rpm",
        "POLOS_DATABASE_URL": postgres_server.create_database(),
        "POLOS_BROKER_URL": server.url,
        "MODEL_URL": told.url,
        "GROQ_API_KEY": "k",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}",
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


async def test_a_death_between_permit_and_call_and_while_others_wait_costs_nobody_his_turn(
    environment: dict[str, str], told: Recorder
) -> None:
    from limited_program import limited

    settings = Settings.from_environment(environment)
    connection = find_database(settings).connect()

    def waiting() -> int:
        [(count,)] = connection.read(COUNT_WAITING_TURNS, {"project": "default"})
        return int(count)

    with Folder.new(environment) as folder:
        celery = str(Path(sys.executable).with_name("celery"))
        worker = [celery, "-A", "polos", "worker", "-c", "4", "-l", "INFO", "-n"]
        doomed = folder.command(*worker, "doomed@here", POLOS_FAULT="before_execute:kill9:2:turn limited")
        async with PolosClient(settings=settings) as client:
            handles = [await limited.invoke(client, {"input": f"{number}"}) for number in range(4)]
            await asyncio.to_thread(doomed.ends, code=None, seconds=120)
            assert len(told.seen) == 1, "the second had its permit and no call"
            assert waiting() >= 1
            folder.command(*worker, "heir@here")
            records = [await client.wait(handle.id, timeout_seconds=120) for handle in handles]
    connection.close()
    assert [record["status"] for record in records] == ["completed"] * 4
    assert len(told.seen) == 4
