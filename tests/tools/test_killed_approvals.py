"""An agent waits for approval while its worker is killed; the answer, over HTTP, lets it go on elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from models.servers import ModelServer, model_server
from scripts import Folder, Script, wait_until
from server.stand import API, stand
from services import sqlite_url

from polos.settings import Settings

pytestmark = pytest.mark.timeout(180)
PROGRAM = Path(__file__).parent / "transfer_program.py"
QUICK = {"POLOS_SILENCE_LIMIT_SECONDS": "3", "POLOS_BEAT_SECONDS": "0.3", "POLOS_SWEEP_SECONDS": "0.2"}


class Bank:
    """Workers of one folder, and a server beside them."""

    def __init__(self, folder: Folder, client: httpx.Client) -> None:
        self._folder = folder
        self._client = client

    def worker(self) -> Script:
        """Start a Celery worker that executes one thing at a time."""
        command = [
            str(Path(sys.executable).with_name("celery")),
            "-A",
            "polos",
            "worker",
            "-c",
            "1",
            "-l",
            "INFO",
        ]
        variables = {"POLOS_IMPORTS": "transfer_program", "POLOS_EMBEDDED_WORKER": "0"}
        worker = self._folder.command(*command, **variables)
        worker.wait_for(" ready.", seconds=60)
        return worker

    def start(self, name: str, payload: Any = None) -> str:
        response = self._client.post(f"{API}/workflows/{name}/run", json={"payload": payload})
        return str(response.json()["execution_id"])

    def questions(self) -> dict[str, str]:
        """Return the keys of open questions by the ids of root runs."""
        found = self._client.get(f"{API}/approvals").json()
        return {one["execution_id"]: one["step_key"] for one in found}

    def asked(self, run_id: str) -> str:
        wait_until(lambda: run_id in self.questions(), seconds=60)
        return self.questions()[run_id]

    def answer(self, run_id: str, key: str, **data: Any) -> None:
        path = f"{API}/approvals/{run_id}/{key}/submit"
        self._client.post(path, json={"data": data, "answered_by": "Grace"}).raise_for_status()

    def result(self, run_id: str) -> Any:
        path = f"{API}/executions/{run_id}"
        wait_until(lambda: self._client.get(path).json()["status"] == "completed", seconds=60)
        return self._client.get(path).json()["result"]

    @property
    def ledger(self) -> list[str]:
        file = self._folder.path / "ledger.txt"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def bank(request: pytest.FixtureRequest, model: ModelServer, valkey_url: str) -> Iterator[Bank]:
    with Folder.new({**model.environment, **QUICK}) as folder:
        shutil.copy(PROGRAM, folder.path)
        url = (
            sqlite_url(folder.path)
            if request.param == "sqlite"
            else request.getfixturevalue("postgres_server").create_database()
        )
        settings = Settings(
            database_url=url,
            broker_url=f"{valkey_url}/7",
            redis_prefix=f"bank-{request.param}:",
            local_mode="true",
        )
        folder.environment |= {
            "POLOS_DATABASE_URL": settings.database_url,
            "POLOS_BROKER_URL": settings.broker_url,
            "POLOS_REDIS_PREFIX": settings.redis_prefix,
        }
        with stand(settings) as server:
            yield Bank(folder, server.client())


def test_the_death_of_a_worker_while_it_waits_costs_nothing(bank: Bank, model: ModelServer) -> None:
    first = bank.worker()
    model.calls(("transfer", {"to": "ada", "amount": 5}))
    approved = bank.start("banker", {"input": "Pay Ada."})
    key = bank.asked(approved)
    model.calls(("transfer", {"to": "bob", "amount": 7}))
    rejected = bank.start("banker", {"input": "Pay Bob."})
    other_key = bank.asked(rejected)  # the first has no slot of the queue any more, nor of the worker
    assert bank.result(bank.start("probe")) == "free"

    first.kill()
    model.says("Done.", times=2)
    bank.answer(approved, key, approved=True)
    bank.answer(rejected, other_key, approved=False, feedback="Who is Bob?")
    bank.worker()

    [paid] = bank.result(approved)["tool_results"]
    [refused] = bank.result(rejected)["tool_results"]
    assert (paid["status"], paid["result"]) == ("completed", "5 to ada")
    assert refused["error"] == "Tool 'transfer' was rejected by the user. Feedback: Who is Bob?"
    assert bank.ledger == ["ada 5"]
    assert len(model.requests) == 4  # two turns of each run, none of them twice
