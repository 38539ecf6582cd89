"""A Celery app on the broker named in its environment; its task leaves the answer in a list."""

from __future__ import annotations

import os

from celery import Celery
from redis import Redis

app = Celery("celery_program", broker=os.environ["TEST_BROKER_URL"])
app.conf.broker_connection_retry_on_startup = True


@app.task(ignore_result=True)
def double(number: int) -> None:
    with Redis.from_url(os.environ["TEST_REDIS_URL"]) as client:
        client.lpush("answers", number * 2)
