"""`Worker`: a file that serves, beside a file that asks; and what it refuses."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from scripts import Folder

from polos import Agent, PolosClient, Worker, WorkflowContext, get_workflow, workflow
from polos.errors import ConfigurationError
from polos.settings import Settings

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> PolosClient:
    monkeypatch.delenv("POLOS_DEPLOYMENT_ID", raising=False)
    return PolosClient(settings=Settings(project_id="shop"))


def test_a_file_serves_what_another_asks_for(folder: Folder) -> None:
    folder.write(
        "worker.py",
        """
        from polos.runtime.worker import Worker

        @workflow(id="old")
        async def listed(ctx: WorkflowContext, payload: dict) -> str:
            return f"listed {payload['n']}"

        @workflow(id="old")
        async def newer(ctx: WorkflowContext, payload: dict) -> str:
            return "not listed"

        async def main():
            client = PolosClient(deployment_id="v1")
            worker = Worker(client, deployment_id="v1", workflows=[listed], mode="push")
            serves = asyncio.create_task(worker.run())
            say(await listed.run(client, {"n": 0}))
            await serves
            say("ended")

        asyncio.run(main())
        """,
    )
    folder.write(
        "main.py",
        """
        async def main():
            async with PolosClient() as client:
                handle = await client.invoke("old", {"n": 3})
                say((await client.wait(handle.id))["result"])

        asyncio.run(main())
        """,
    )
    worker = folder.start("worker.py")
    worker.wait_for("listed 0")

    assert folder.start("main.py").ends() == "listed 3"
    worker.interrupt()
    assert worker.ends().splitlines()[-1] == "ended"


def test_a_worker_needs_a_deployment(client: PolosClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="POLOS_DEPLOYMENT_ID"):
        Worker(client)
    monkeypatch.setenv("POLOS_DEPLOYMENT_ID", "v3")
    worker = Worker(client, max_concurrent_workflows=7)

    assert worker.deployment_id == worker.settings.deployment_id == "v3"
    assert (worker.settings.project_id, worker.settings.embedded_concurrency) == ("shop", 7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "pull"}, "leave mode out"),
        ({"mode": "sideways"}, "give 'push'"),
        ({"channels": [object()]}, "leave it out"),
    ],
)
def test_what_it_cannot_do_is_refused(client: PolosClient, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Worker(client, "v1", **options)


def test_the_server_of_somebody_else_is_no_place_to_serve() -> None:
    client = PolosClient("https://polos.example.com", "key")
    with pytest.raises(ConfigurationError, match="POLOS_DATABASE_URL"):
        Worker(client, "v1")


def test_what_is_of_another_kind_is_left_out(client: PolosClient, caplog: pytest.LogCaptureFixture) -> None:
    @workflow(id="explicit-one")
    async def one(ctx: WorkflowContext) -> None: ...

    agent = Agent(id="explicit-agent", provider="openai", model="gpt-4o")
    with caplog.at_level(logging.WARNING):
        worker = Worker(client, "v1", agents=[agent, one], workflows=["no"])  # type: ignore[list-item]

    assert (worker.agents, worker.tools, worker.workflows) == ([agent], [], [])
    assert "is no agent" in caplog.text
    assert "'no' is no workflow" in caplog.text
    assert get_workflow("explicit-one") is one
