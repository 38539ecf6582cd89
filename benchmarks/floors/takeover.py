"""Floor of W6: a process that waits for another one's lock, and then goes on with its steps.

`python -m benchmarks.floors.takeover URL RUN LOG STEPS SECONDS`: the lock is one of the file system beside an
SQLite file, an advisory one of PostgreSQL; both become free when the process that holds it dies.
"""

from __future__ import annotations

import fcntl
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
from sqlalchemy import make_url

from benchmarks.floors.journal import Journal, claim, create, open_journal
from benchmarks.programs import log_begin
from benchmarks.waiting import connection

NUMBER = 7  # of the advisory lock
RECORDED = "SELECT count(*) FROM step WHERE run_id = '{}'"


def main(url: str, run: str, log: str, steps: int, seconds: float) -> None:
    """Wait for the lock, read what is recorded, and do the rest."""
    with closing(open_journal(url)) as journal, _lock(url):
        with connection(url) as driver:
            [recorded] = driver.execute(RECORDED.format(run)).fetchone()
        if not recorded:
            journal.commit(create(run))
            journal.commit(claim(run))
        for number in range(recorded, steps):
            _step(journal, run, log, number, seconds)


def _step(journal: Journal, run: str, log: str, number: int, seconds: float) -> None:
    log_begin(log, number)
    time.sleep(seconds)
    journal.commit(journal.step(run, f"step{number}", str(number)))


@contextmanager
def _lock(url: str) -> Iterator[None]:
    if url.startswith("sqlite"):
        with open(f"{make_url(url).database}.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    else:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute("SELECT pg_advisory_lock(%s)", (NUMBER,))
            yield


if __name__ == "__main__":
    url, run, log, steps, seconds = sys.argv[1:]
    main(url, run, log, int(steps), float(seconds))
