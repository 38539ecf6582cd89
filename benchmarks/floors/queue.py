"""Floors of W2 and W3: plain Celery, raw commits, and a notice on Redis when a run has ended."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import redis
from celery import Celery

from benchmarks.floors.journal import Journal, create, open_journal
from benchmarks.floors.queue_app import CHANNEL, TASK, build_app
from benchmarks.servers import Site
from benchmarks.waiting import completed, until_completed

NOTICE_SECONDS = 30.0


class FloorClient:
    """What a client does at least: commit a run, send its message, wait for the notice, read the result."""

    def __init__(self, site: Site, app: Celery, journal: Journal, notices: redis.client.PubSub) -> None:
        self._site = site
        self._app = app
        self._journal = journal
        self._notices = notices

    async def run_many(self, count: int, *, batch: int) -> tuple[float, float]:
        """Enqueue `count` runs and wait for all; return seconds until enqueued and until completed."""
        before = await asyncio.to_thread(completed, self._site.floor_url)
        began = time.perf_counter()
        await asyncio.to_thread(self._enqueue, count, batch)
        enqueued = time.perf_counter() - began
        await until_completed(self._site.floor_url, before + count)
        return enqueued, time.perf_counter() - began

    def run_one(self) -> float:
        """Submit one run and read its result; return the seconds it took."""
        began = time.perf_counter()
        run = str(uuid.uuid4())
        self._notices.subscribe(CHANNEL.format(run))
        self._journal.commit(create(run))
        self.ring([run])
        while self._journal.output_of(run) is None:
            self._notices.get_message(ignore_subscribe_messages=False, timeout=NOTICE_SECONDS)
        took = time.perf_counter() - began
        self._notices.unsubscribe(CHANNEL.format(run))  # type: ignore[no-untyped-call]
        return took

    def create(self, count: int, *, batch: int) -> list[str]:
        """Commit `count` runs whose messages come later."""
        runs = [str(uuid.uuid4()) for _ in range(count)]
        for start in range(0, count, batch):
            self._journal.commit(*(create(run) for run in runs[start : start + batch]))
        return runs

    def ring(self, runs: list[str]) -> None:
        """Send the messages of runs."""
        with self._app.producer_or_acquire() as producer:
            for run in runs:
                self._app.send_task(TASK, [run], producer=producer, ignore_result=True, retry=False)

    def _enqueue(self, count: int, batch: int) -> None:
        for start in range(0, count, batch):
            self.ring(self.create(min(batch, count - start), batch=batch))


@contextmanager
def floor_client(site: Site) -> Iterator[FloorClient]:
    """Connect a client to the floor of a site."""
    with (
        closing(open_journal(site.floor_url)) as journal,
        closing(redis.Redis.from_url(site.floor_broker_url)) as server,
        closing(server.pubsub()) as notices,  # type: ignore[no-untyped-call]
        closing(build_app(site.floor_broker_url)) as app,
    ):
        yield FloorClient(site, app, journal, notices)
