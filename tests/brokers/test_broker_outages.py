"""A broker that dies or stands still under load: no run is lost, no worker has to be restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_load import AWAY, BACK, Fleet, fleet, resident_bytes
from broker_servers import Server, running, valkey_server
from scripts import Script

pytestmark = pytest.mark.timeout(180)
AWAY_SECONDS = 2.5
FROZEN_SECONDS = 10.0
RESUME_SECONDS = 10.0
MAX_GROWTH_BYTES = 64 << 20


@pytest.fixture
def broker(broker_folder: Path) -> Iterator[Server]:
    with running(valkey_server(broker_folder / "mortal", "requirepass hidden")) as server:
        yield server


async def test_a_broker_that_dies_or_stands_still_costs_two_lines_and_no_run(broker: Server) -> None:
    """One fleet for both, because its start takes longest."""
    async with fleet({"POLOS_BROKER_URL": f"redis://:hidden@127.0.0.1:{broker.port}/0"}) as crew:
        workers = [crew.start_worker(), crew.start_worker()]
        async with crew.submitting():
            await crew.until_completed(5)
            broker.kill()
            await asyncio.sleep(AWAY_SECONDS)  # an outage has a length
            broker.start()  # empty
            assert await crew.seconds_to_complete(limit_seconds=RESUME_SECONDS) < RESUME_SECONDS
        await crew.all_end(seconds=60)
        check(crew, workers, outages=1)

        sizes = [resident_bytes(worker.process.pid) for worker in workers]
        async with crew.submitting():
            broker.freeze()
            await asyncio.sleep(FROZEN_SECONDS)
            broker.thaw()
            assert await crew.seconds_to_complete(limit_seconds=RESUME_SECONDS) < RESUME_SECONDS
        await crew.all_end(seconds=60)
        check(crew, workers, outages=2, at_least=1)  # who sends nothing meanwhile notices nothing
        for worker, size in zip(workers, sizes, strict=True):
            assert resident_bytes(worker.process.pid) - size < MAX_GROWTH_BYTES


def check(crew: Fleet, workers: list[Script], *, outages: int, at_least: int = 0) -> None:
    assert crew.amiss() == []
    for worker in workers:
        assert worker.process.poll() is None
        said = [len(crew.said(worker, words)) for words in (AWAY, BACK)]
        assert said in [[count, count] for count in range(at_least or outages, outages + 1)]
        assert "Traceback" not in worker.text
        assert "hidden" not in worker.text
