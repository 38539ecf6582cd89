"""Starts every program that ends by itself, as often as each line of its input says; prints their ids."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys

from polos import PolosClient
from polos.journal.schema import HEAD

NEEDS_CALM = {"recorded-timers"}  # waits for a moment that is near


async def main() -> None:
    client = PolosClient()
    while line := await asyncio.to_thread(sys.stdin.readline):
        for _ in range(int(line)):
            await _start_each(client)
        print(flush=True)
    await client.close()


async def _start_each(client: PolosClient) -> None:
    for module in os.environ["POLOS_IMPORTS"].split(","):
        for start in importlib.import_module(module).STARTS:
            ends = start.becomes in {"completed", "failed"} and not (start.session or start.action)
            if start.since <= HEAD and ends and start.name not in NEEDS_CALM:
                handle = await client.invoke(start.name, start.payload)
                print(handle.id, "failed" if start.becomes == "failed" else "completed", start.name)


asyncio.run(main())
