"""A worker without room on its disk, or without file descriptors: it waits, says why, and loses nothing."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from broker_load import Fleet, fleet
from broker_servers import Server

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        sys.platform != "linux", reason="limits of another process are set by Linux's prlimit"
    ),
]
SHORT_SECONDS = 3.0
SPIN_SHARE = 0.6  # of one core, on a machine that others use


@pytest.fixture
async def crew(plain: Server) -> AsyncIterator[Fleet]:
    async with fleet({"POLOS_BROKER_URL": f"redis://127.0.0.1:{plain.port}/11"}) as crew:
        yield crew


def limit(pid: int, kind: int, soft: int | None) -> None:
    _, hard = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (hard if soft is None else soft, hard))


def used_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_full_disk_pauses_runs_which_go_on_when_there_is_room(crew: Fleet) -> None:
    """A limit on the size of files stands for the end of the disk; unlike a file system it needs no root."""
    worker = crew.start_worker()
    pid = worker.process.pid
    async with crew.submitting():
        await crew.until_completed(3)
        limit(pid, resource.RLIMIT_FSIZE, 4096)
        await asyncio.to_thread(worker.wait_for, "The database is away", seconds=60)
        ended = len(crew.effects("finishes"))
        before = used_seconds(pid)
        await asyncio.sleep(SHORT_SECONDS)  # a full disk lasts
        assert used_seconds(pid) - before < SHORT_SECONDS * SPIN_SHARE
        assert (
            len(crew.effects("finishes")) <= ended + 4
        )  # those that were executing: their effects, not more
        limit(pid, resource.RLIMIT_FSIZE, None)
    await crew.all_end(seconds=60)
    assert crew.amiss() == []
    assert worker.process.poll() is None
    assert "disk" in next(line for line in worker.lines if "The database is away" in line)
    assert "Traceback" not in worker.text, worker.text


async def test_a_worker_without_descriptors_says_so_and_goes_on(crew: Fleet) -> None:
    worker = crew.start_worker()
    pid = worker.process.pid
    async with crew.submitting():
        await crew.until_completed(3)
        limit(pid, resource.RLIMIT_NOFILE, len(os.listdir(f"/proc/{pid}/fd")) - 2)
        await asyncio.to_thread(worker.wait_for, "Too many open files", seconds=60)
        before = used_seconds(pid)
        await asyncio.sleep(SHORT_SECONDS)  # a shortage lasts
        assert used_seconds(pid) - before < SHORT_SECONDS * SPIN_SHARE
        limit(pid, resource.RLIMIT_NOFILE, None)
    await crew.all_end(seconds=60)
    assert crew.amiss() == []
    assert worker.process.poll() is None
    assert "Traceback" not in worker.text, worker.text
