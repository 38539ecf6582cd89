"""Floors of W1: steps one after another, committed by the raw driver, or through group commit on a loop."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from contextlib import closing

import uvloop

from benchmarks.floors.journal import claim, create, group_writer, open_journal
from benchmarks.measuring import Figures
from benchmarks.programs import NOTHING


async def raw_commits(url: str, steps: int) -> Figures:
    """Commit each step on a blocking connection."""
    return await asyncio.to_thread(_raw_commits, url, steps)


def _raw_commits(url: str, steps: int) -> Figures:
    run = str(uuid.uuid4())
    with closing(open_journal(url)) as journal:
        journal.commit(create(run))
        journal.commit(claim(run))
        began = time.perf_counter()
        for number in range(steps):
            journal.commit(journal.step(run, f"step{number}", json.dumps(NOTHING)))
        return {"steps_per_second": steps / (time.perf_counter() - began)}


async def group_commits(url: str, steps: int) -> Figures:
    """Hand each step to a group-commit writer on an event loop, and wait for it."""
    return await asyncio.to_thread(uvloop.run, _group_commits(url, steps))


async def _group_commits(url: str, steps: int) -> Figures:
    run = str(uuid.uuid4())
    async with group_writer(url) as (writer, journal):
        await writer.do(create(run))
        await writer.do(claim(run))
        began = time.perf_counter()
        for number in range(steps):
            await writer.do(journal.step(run, f"step{number}", json.dumps(NOTHING)))
        return {"steps_per_second": steps / (time.perf_counter() - began)}
