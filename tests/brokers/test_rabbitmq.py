"""RabbitMQ as the broker, with a Redis for notices beside it: classic queues and quorum queues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_program import passes_everything, serving
from broker_servers import RabbitMQ, Server, rabbitmq
from models.servers import ModelServer

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def rabbit(broker_folder: Path) -> Iterator[RabbitMQ]:
    with rabbitmq(broker_folder / "rabbit") as server:
        yield server


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_queues_of_either_kind(
    tmp_path: Path, rabbit: RabbitMQ, plain: Server, model: ModelServer, config: dict[str, object], kind: str
) -> None:
    config["task_default_queue_type"] = kind
    notices = f"redis://127.0.0.1:{plain.port}/0"
    async with serving(
        tmp_path, broker_url=rabbit.vhost(kind), redis_url=notices, redis_prefix=f"{kind}:"
    ) as client:
        await passes_everything(client, model)
    assert {found for name, found in rabbit.queues(kind).items() if name.startswith("polos")} >= {kind}
