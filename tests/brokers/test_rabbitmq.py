"""RabbitMQ as the broker, with a Redis for notices beside it: classic queues and quorum queues."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from broker_load import AWAY, BACK, fleet
from broker_program import passes_everything, serving
from broker_servers import RabbitMQ, Server
from models.servers import ModelServer

pytestmark = pytest.mark.timeout(180)
AWAY_SECONDS = 2.0
RESUME_SECONDS = 40.0


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_queues_of_either_kind(
    tmp_path: Path, rabbit: RabbitMQ, plain: Server, model: ModelServer, config: dict[str, object], kind: str
) -> None:
    config["task_default_queue_type"] = kind
    values = {
        "broker_url": rabbit.vhost(kind),
        "redis_url": f"redis://127.0.0.1:{plain.port}/0",
        "redis_prefix": f"{kind}:",
    }
    async with serving(tmp_path, **values) as client:
        await passes_everything(client, model)
        types = rabbit.queues(kind)
    assert (types["polos"], types["polos.next"]) == (kind, kind)


async def test_a_worker_and_then_rabbitmq_die_under_load(
    rabbit: RabbitMQ, plain: Server, config: dict[str, object]
) -> None:
    config["task_default_queue_type"] = "quorum"
    environment = {
        "POLOS_BROKER_URL": rabbit.vhost("mortal"),
        "POLOS_REDIS_URL": f"redis://127.0.0.1:{plain.port}/0",
        "POLOS_REDIS_PREFIX": "mortal:",
    }
    async with fleet(environment, celeryconfig="task_default_queue_type = 'quorum'\n") as crew:
        victim, survivor = crew.start_worker(), crew.start_worker()
        async with crew.submitting():
            await crew.until_completed(5)
            victim.kill()
            assert await crew.seconds_to_complete(limit_seconds=RESUME_SECONDS) < RESUME_SECONDS
            rabbit.kill()
            await asyncio.sleep(AWAY_SECONDS)  # an outage has a length
            rabbit.start()
            assert await crew.seconds_to_complete(limit_seconds=RESUME_SECONDS) < RESUME_SECONDS
        await crew.all_end(seconds=60)
        assert all(count > 0 for _, _, count in crew.amiss())  # the victim's last effects may have come twice
        assert len(crew.amiss()) <= 4
        assert survivor.process.poll() is None
        assert [len(crew.said(survivor, words)) for words in (AWAY, BACK)] == [1, 1], survivor.text[-3000:]
        assert "Traceback" not in survivor.text
