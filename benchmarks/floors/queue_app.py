"""Plain Celery with raw commits: `celery -A benchmarks.floors.queue_app worker`."""

from __future__ import annotations

import functools
import json
import os

import redis
from celery import Celery

from benchmarks.floors.journal import Journal, claim, finish, open_journal

NOTHING = json.dumps({"value": "x" * 185})
TASK = "floor.one_step"
CHANNEL = "floor:{}"


def build_app(broker_url: str) -> Celery:
    """Return the app, for workers and clients: early acknowledgement, no results, no events."""
    app = Celery("floor", broker=broker_url, set_as_current=False)
    app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4, task_default_queue="floor")
    app.task(name=TASK)(_one_step)
    return app


def _one_step(run: str) -> None:
    journal = _journal()
    journal.commit(claim(run))
    journal.commit(journal.step(run, "step", NOTHING))
    journal.commit(finish(run, NOTHING))
    _redis().publish(CHANNEL.format(run), "ended")


@functools.cache
def _journal() -> Journal:
    return open_journal(os.environ["FLOOR_DATABASE_URL"])


@functools.cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(os.environ["FLOOR_BROKER_URL"])


if url := os.environ.get("FLOOR_BROKER_URL"):
    app = build_app(url)
