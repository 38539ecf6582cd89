"""Ends the children of many parents in batches: finisher.py DATABASE_URL WORKER SEED, 'go' on stdin."""

from __future__ import annotations

import asyncio
import random
import sys

from scenes import claim, finishing
from sqlalchemy import bindparam, select

from polos.journal.database import Database
from polos.journal.runs import R, claim_from
from polos.journal.statements import Statement
from polos.journal.writer import Journal

MINE = Statement(select(R.id).where(R.user_id == bindparam("worker")))


async def finish_all(url: str, worker: str, seed: int) -> None:
    journal = Journal.open(Database(url))
    ids = sorted(row[0] for row in await journal.read(MINE, worker=worker))
    random.Random(seed).shuffle(ids)
    rows = await asyncio.gather(*(journal.do(claim(run_id, worker)) for run_id in ids))
    claims = [claim_from(row[0]) for row in rows]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for start in range(0, len(claims), 20):
        batch = claims[start : start + 20]
        answers = await asyncio.gather(*(journal.do(finishing(run)) for run in batch))
        assert all(answers)
    await journal.close()


if __name__ == "__main__":
    asyncio.run(finish_all(sys.argv[1], sys.argv[2], int(sys.argv[3])))
