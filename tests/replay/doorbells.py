"""The Celery messages that polos of the version on the path rings with; run as a program, it prints them."""

from __future__ import annotations

import json
from typing import Any

from celery import Celery

from polos.dispatch import Doorbell, Sender

KEPT = ("task", "lang", "shadow", "ignore_result", "retries", "eta", "expires", "group")  # headers


def messages() -> list[dict[str, Any]]:
    """Return what is on the broker after ringing for one run and for one turn."""
    app = Celery("recorded", broker="memory://", set_as_current=False)
    bells = [
        Doorbell("5b0c54f6-0000-4000-8000-000000000001", "recorded-agent"),
        Doorbell("5b0c54f6-0000-4000-8000-000000000001", "recorded-agent.turn", step="$turn:1"),
    ]
    Sender(app).send(bells)
    found: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        for queue in sorted(channel.queues):
            while (message := channel.basic_get(queue, no_ack=True)) is not None:
                found.append(_written(queue, message))
    return found


def _written(queue: str, message: Any) -> dict[str, Any]:
    return {
        "queue": queue,
        "content_type": message.content_type,
        "headers": {name: message.headers.get(name) for name in KEPT},
        "body": json.loads(message.body),
    }


if __name__ == "__main__":
    for each in messages():
        print(json.dumps(each))
