"""A program that is none of ours and uses our SQLite file: ``python squatter.py FILE KIND SECONDS``.

It says "begun" once it has what it wants, and "ended" when it has given it back.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PATIENCE_SECONDS = 60.0
TABLE = "squatted"  # none of the journal's


def write(connection: sqlite3.Connection, seconds: float) -> None:
    """Hold the lock to write, with something written."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"CREATE TABLE {TABLE} (line TEXT)")
    connection.execute(f"INSERT INTO {TABLE} VALUES ('half a thought')")
    _stay(seconds)
    connection.execute("ROLLBACK")


def read(connection: sqlite3.Connection, seconds: float) -> None:
    """Read from a snapshot for so long: no checkpoint can get past it."""
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM run").fetchall()
    _stay(seconds)
    connection.execute("COMMIT")


def tidy(connection: sqlite3.Connection, seconds: float) -> None:
    """Write everything down and begin the log anew, again and again, as who looks after files does."""
    _say("begun")
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute("VACUUM")


def copy(connection: sqlite3.Connection, seconds: float) -> None:
    """Make a copy of the file while it is written to, page by page."""
    _say("begun")
    path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    with sqlite3.connect(f"{path}.copy") as target:
        connection.backup(target, pages=20, sleep=0.05)
    Path(f"{path}.copy").unlink()


KINDS: Mapping[str, Callable[[sqlite3.Connection, float], None]] = {
    "write": write,
    "read": read,
    "tidy": tidy,
    "copy": copy,
}


def _stay(seconds: float) -> None:
    _say("begun")
    time.sleep(seconds)


def _say(word: str) -> None:
    print(word, flush=True)


if __name__ == "__main__":
    file, kind, seconds = sys.argv[1:]
    KINDS[kind](sqlite3.connect(file, isolation_level=None, timeout=PATIENCE_SECONDS), float(seconds))
    _say("ended")
