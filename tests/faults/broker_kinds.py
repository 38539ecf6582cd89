"""The brokers a scenario can be played over: Valkey, or RabbitMQ with a Valkey for notices beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Protocol

import kombu
import redis
from brokers.broker_servers import RabbitMQ, rabbitmq_program
from daemons import HERE, Daemon, valkey_daemon
from network import Host

REDIS, RABBITMQ = "redis", "rabbitmq"
BROKERS = (REDIS, RABBITMQ)
VHOST = "faults"
QUORUM = "task_default_queue_type = 'quorum'\n"


class Broker(Protocol):
    """What carries doorbells, at the mercy of a scenario.

    Attributes:
        environment: The settings that name it.
        redis: The Valkey, of doorbells or only of notices.
    """

    environment: dict[str, str]
    redis: Daemon

    def kill(self) -> None:
        """Kill it with SIGKILL."""

    def start(self) -> None:
        """Start it again at the same place, and return once it answers."""

    def freeze(self) -> None:
        """Stop its processes in the middle of whatever they do."""

    def thaw(self) -> None:
        """Let them go on."""

    def forget(self) -> int:
        """Lose all messages; return how many doorbells for new and for begun runs there were."""


class RedisBroker:
    """A Valkey that keeps nothing on disk."""

    def __init__(self, server: Daemon) -> None:
        self.redis = server
        self.environment = {"POLOS_BROKER_URL": f"redis://{server.host.address}:{server.port}/0"}
        self.kill, self.start = server.kill, server.start
        self.freeze, self.thaw = server.freeze, server.thaw

    def forget(self) -> int:
        """Flush it."""
        with redis.Redis(host=self.redis.host.address, port=self.redis.port) as client:
            lost = sum(int(client.llen(queue)) for queue in ("polos", "polos.next"))  # type: ignore[arg-type]
            client.flushall()
        return lost


class RabbitBroker:
    """A RabbitMQ of one node, with quorum queues, which outlive it."""

    def __init__(self, server: RabbitMQ, notices: Daemon) -> None:
        self.server, self.redis = server, notices
        self.environment = {
            "POLOS_BROKER_URL": server.vhost(VHOST),
            "POLOS_REDIS_URL": f"redis://{notices.host.address}:{notices.port}/0",
        }
        self.kill, self.start = server.kill, server.start
        self.freeze, self.thaw = server.freeze, server.thaw

    def limit_deliveries(self, most: int, given_up: str) -> None:
        """Have queues move what was delivered more often than that to the queue `given_up`."""
        with kombu.Connection(self.environment["POLOS_BROKER_URL"]) as connection:
            kombu.Queue(given_up, durable=True, queue_arguments={"x-queue-type": "quorum"})(
                connection.channel()
            ).declare()
        policy = {"delivery-limit": most, "dead-letter-exchange": "", "dead-letter-routing-key": given_up}
        queues = ("--apply-to", "queues", "limit", "^polos", json.dumps(policy))
        self.server.control("set_policy", "-p", VHOST, *queues)

    def count(self, queue: str) -> int:
        """Return how many messages wait in a queue."""
        told = self.server.control("list_queues", "-q", "--no-table-headers", "-p", VHOST, "name", "messages")
        return {name: int(number) for name, number in (line.split("\t") for line in told.splitlines())}[queue]

    def forget(self) -> int:
        """Purge every queue: what somebody has taken and not acknowledged stays."""
        told = self.server.control(
            "list_queues", "-q", "--no-table-headers", "-p", VHOST, "name", "messages_ready"
        )
        queues = {name: int(ready) for name, ready in (line.split("\t") for line in told.splitlines())}
        for queue in queues:
            self.server.control("purge_queue", "-p", VHOST, queue)
        return sum(queues.get(queue, 0) for queue in ("polos", "polos.next"))


def why_no_rabbitmq() -> str:
    """Return why there is no RabbitMQ here; empty where there is."""
    return "" if rabbitmq_program() else "rabbitmq-server is not on PATH (apt-get install rabbitmq-server)"


@contextmanager
def open_broker(kind: str, folder: Path, host: Host = HERE) -> Iterator[Broker]:
    """Run a broker while the context lasts."""
    with valkey_daemon(folder / "valkey", host) as server:
        if kind == REDIS:
            yield RedisBroker(server)
            return
        program = rabbitmq_program()
        assert program is not None, why_no_rabbitmq()
        rabbit = RabbitMQ(program, folder / "rabbitmq")
        try:
            rabbit.start()
            with _quorum_queues(folder):
                yield RabbitBroker(rabbit, server)
        finally:
            rabbit.end()


@contextmanager
def _quorum_queues(folder: Path) -> Iterator[None]:
    """Have workers, which run in `folder`, and clients of this process declare quorum queues."""
    (folder / "celeryconfig.py").write_text(QUORUM)
    module = ModuleType("celeryconfig")
    exec(QUORUM, vars(module))
    before, sys.modules["celeryconfig"] = sys.modules.get("celeryconfig"), module
    try:
        yield
    finally:
        del sys.modules["celeryconfig"]
        if before is not None:
            sys.modules["celeryconfig"] = before
