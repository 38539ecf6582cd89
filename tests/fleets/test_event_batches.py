"""Flower hears everything, in few messages, and also what happened just before a worker ended."""

from __future__ import annotations

import base64
import json
import signal
from collections import defaultdict

import pytest
import redis
from scripts import wait_until
from services import valkey
from worker_fleet import Fleet

pytestmark = pytest.mark.timeout(120)
WHOLE = ["task-received", "task-started", "task-succeeded"]


def test_no_event_is_lost_although_they_go_out_together(fleet: Fleet) -> None:
    with valkey() as url, redis.Redis.from_url(f"{url}/0") as client, client.pubsub() as heard:
        fleet.folder.environment["POLOS_BROKER_URL"] = f"{url}/0"
        heard.psubscribe("*celeryev*")
        worker = fleet.worker("-c", "8", "-E")
        fleet.results(fleet.start(*[("root", {"n": number}) for number in range(20)]))
        worker.process.send_signal(signal.SIGTERM)
        worker.ends()

        messages: list[list[dict[str, str]]] = []

        def is_quiet() -> bool:
            message = heard.get_message(timeout=0.2)
            if message is not None and message["type"] == "pmessage" and b"task" in message["channel"]:
                told = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
                messages.append(told if isinstance(told, list) else [told])
            return message is None

        wait_until(is_quiet, seconds=30)
    seen: dict[str, list[str]] = defaultdict(list)
    for event in (event for message in messages for event in message):
        seen[event["uuid"]].append(event["type"])
    assert len(seen) >= 80, "20 trees of four runs"
    assert [kinds for kinds in seen.values() if kinds != WHOLE] == []
    assert len(messages) < len(seen), "a message for each event would be three times as many"
