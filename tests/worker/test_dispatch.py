"""Doorbells through a real Valkey, and without one."""

import json
import logging

import redis
from celery import Celery
from services import valkey

from polos.connections import broker_at
from polos.dispatch import DispatchThread, Doorbell, Sender, broker_settings


def app_for(url: str) -> Celery:
    app = Celery("dispatch-test", set_as_current=False)
    app.conf.update(broker_settings(url), task_ignore_result=True)
    return app


def messages(url: str, queue: str) -> list[dict]:
    with redis.Redis.from_url(url) as client:
        return [json.loads(raw) for raw in client.lrange(queue, 0, -1)]


def test_a_doorbell_carries_ids_and_a_label_and_stays_small():
    with valkey() as url:
        Sender(app_for(url + "/0")).send([Doorbell("run-1", "weather-agent")])
        [message] = messages(url + "/0", "polos")
    assert message["headers"]["task"] == "polos.run"
    assert message["headers"]["shadow"] == "weather-agent"
    assert message["headers"]["argsrepr"] == "['run-1']"
    assert len(json.dumps(message)) < 1100


def test_what_is_begun_rings_the_next_queue():
    with valkey() as url:
        Sender(app_for(url + "/0")).send([Doorbell("r", "a.turn", step="$turn:1", begun=True)])
        [message] = messages(url + "/0", "polos.next")
    assert message["headers"]["task"] == "polos.turn"


def test_an_unreachable_broker_costs_one_warning_and_nobody_waits(caplog):
    url = "redis://:secret@127.0.0.1:1/0"
    outage = broker_at(url, setting="POLOS_BROKER_URL").outage()
    thread = DispatchThread(Sender(app_for(url)), outage.report)
    with caplog.at_level(logging.WARNING, "polos.connections"):
        for number in range(3):
            thread.ring(Doorbell(f"run-{number}", "a"))
        thread.stop(timeout_seconds=20)
    warnings = [record.getMessage() for record in caplog.records if record.name == "polos.connections"]
    assert len(warnings) == 1
    assert "POLOS_BROKER_URL" in warnings[0]
    assert "secret" not in warnings[0]
