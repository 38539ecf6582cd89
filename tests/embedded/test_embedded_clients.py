from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import nursery
import pytest
import redis.asyncio
from celery import Celery
from redis import Redis

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]


@contextmanager
def celery(*arguments: str, urls: dict[str, str], log: Path) -> Iterator[Celery]:
    """A process of the app, and the app as its clients see it."""
    environment = {
        "TEST_BROKER_URL": urls["broker_url"],
        "TEST_REDIS_URL": urls["redis_url"],
        "FLOWER_UNAUTHENTICATED_API": "1",
        "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}",
    }
    command = [sys.executable, "-m", "celery", "-A", "celery_program", *arguments]
    with log.open("w") as output, Celery(broker=urls["broker_url"], set_as_current=False) as app:
        process = nursery.start(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=output
        )
        try:
            yield app
        finally:
            process.kill()
            process.wait()


def worker(urls: dict[str, str], log: Path):
    return celery("worker", "--pool=solo", "--without-mingle", "--loglevel=INFO", urls=urls, log=log)


def doubled(app: Celery, url: str, number: int) -> int:
    app.send_task("celery_program.double", [number])
    with Redis.from_url(url) as client:
        answer = client.blpop("answers", timeout=15)
    assert answer, "the task was not run"
    return int(answer[1])


def test_a_celery_worker_takes_tasks_answers_pings_and_logs_no_password(any_crew, tmp_path):
    urls = any_crew.user().tell("acquire")

    with worker(urls, tmp_path / "log") as app:
        assert doubled(app, urls["redis_url"], 21) == 42
        assert app.control.ping(limit=1, timeout=10)

    assert any_crew.record()["password"] not in (tmp_path / "log").read_text()


def test_a_celery_worker_goes_on_with_the_server_started_again(crew, tmp_path):
    user = crew.user()
    urls = user.tell("acquire")

    with worker(urls, tmp_path / "log") as app:
        assert doubled(app, urls["redis_url"], 1) == 2
        crew.kill_server()
        assert user.tell("refresh")["changed"] is False

        assert doubled(app, urls["redis_url"], 2) == 4


def test_flower_counts_the_messages_of_a_queue(any_crew, tmp_path):
    urls = any_crew.user().tell("acquire")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    with celery("flower", f"--port={port}", urls=urls, log=tmp_path / "log") as app:
        app.send_task("celery_program.double", [1])
        any_crew.wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthcheck"), seconds=15)

        assert json.loads(answers(f"http://127.0.0.1:{port}/api/queues/length"))["active_queues"] == [
            {"name": "celery", "messages": 1}
        ]


def answers(url: str) -> bytes:
    try:
        with urlopen(url) as response:
            return response.read()
    except URLError:
        return b""


async def test_redis_py_publishes_and_subscribes(any_crew):
    urls = any_crew.user().tell("acquire")

    async with redis.asyncio.Redis.from_url(urls["redis_url"]) as client, client.pubsub() as subscriber:
        await subscriber.subscribe("news")
        await client.publish("news", "read all about it")
        async with asyncio.timeout(5):
            heard = [message async for message in first_message(subscriber)]

    assert heard == [b"read all about it"]


async def first_message(subscriber):
    async for message in subscriber.listen():
        if message["type"] == "message":
            yield message["data"]
            return
