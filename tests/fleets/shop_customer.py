"""Asks the shop's workers for tasks of its own and for runs, and prints what came of them."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from msgpack import Timestamp
from shop import app, clerk, dies_once, limited, seconds_of, settings_of, too_slow, whole

from polos import PolosClient

WAIT_SECONDS = 60


def own_tasks() -> dict[str, Any]:
    asked = {
        "settings": settings_of.delay(),
        "seconds": seconds_of.delay(Timestamp(7)),
        "first": limited.delay(),
        "second": limited.delay(),
        "slow": too_slow.delay(),
    }
    if "DIES_ONCE" in os.environ:
        asked["late"] = dies_once.delay(os.environ["DIES_ONCE"])
    found = {name: result.get(timeout=WAIT_SECONDS, propagate=False) for name, result in asked.items()}
    return {**found, "slow": type(found["slow"]).__name__, "ids": [result.id for result in asked.values()]}


async def runs() -> dict[str, Any]:
    async with PolosClient() as client:
        orders = [whole.run(client, {"n": 3, "pause": 1.5}) for _ in range(3)]
        answer = await clerk.run(client, "How many chairs are there?")
        return {"answer": answer.result, "orders": await asyncio.gather(*orders)}


async def a_run_and_an_eager_task() -> dict[str, Any]:
    app.conf.task_always_eager = True
    async with PolosClient() as client:
        run = await whole.run(client, {"n": 1})
    return {"run": run, "pid": settings_of.delay().get()["pid"], "own_pid": os.getpid()}


answers = asyncio.run(runs()) | own_tasks() | {"eager": asyncio.run(a_run_and_an_eager_task())}
print(json.dumps(answers, default=repr))
