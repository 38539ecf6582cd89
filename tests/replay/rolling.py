"""A live upgrade: workers of an older version, the schema moved on beside them, then workers of this one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from recording import HERE, answered, environment_of, running_worker, version_of
from servers import recorder
from services import postgres, valkey
from sqlalchemy import bindparam, select

from polos.journal import schema
from polos.journal.database import Database
from polos.journal.runs import R
from polos.journal.statements import Statement, texts_of

ROOT = HERE.parents[1]
Wanted = dict[str, tuple[str, str]]
PATIENCE_SECONDS = 300.0
WORKERS = 2  # of each version
READ_ENDS = Statement(
    select(R.id, R.status, R.error).where(R.id.op("IN")(texts_of(bindparam("runs", type_=R.id.type))))
)


def upgrade_live(code: Path, *, kind: str, times: int) -> str:
    """Play it on one kind of database; return what became of the runs.

    Raises:
        AssertionError: A run did not end as it should have.
    """
    head, _ = version_of(code)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="polos-rolling-")))
        url = stack.enter_context(_database(kind, folder))
        model = stack.enter_context(recorder())
        model.answer = answered
        shared = {"broker": stack.enter_context(valkey()), "model": model.url, "database": url, "head": head}
        before = {**environment_of(code, folder, **shared), "REPLAY_RECORDING": "0"}
        after = {**environment_of(ROOT, folder, **shared), "REPLAY_RECORDING": "0"}
        database = Database(url)

        leaving = stack.enter_context(ExitStack())
        old = [leaving.enter_context(running_worker(f"old{n}", folder, before)) for n in range(WORKERS)]
        call_old = stack.enter_context(_caller(before))
        wanted = call_old(times)  # under way while the schema moves
        found = schema.upgrade(database)
        later = call_old(times)  # begun by an old client, for old workers, on the new schema
        _until_ended(database, list(later))
        for n in range(WORKERS):
            stack.enter_context(running_worker(f"new{n}", folder, after))
        call_new = stack.enter_context(_caller(after))
        wanted |= later | call_new(times) | call_old(times)  # both versions serve them
        old[0].terminate()
        leaving.close()  # and the other one is killed
        _until_ended(database, list(wanted))
        return f"{kind}: from {found} to {schema.HEAD}: {_told(database, wanted)}"


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'journal.db'}"
        return
    with postgres() as server:
        yield server.create_database(empty=True)


@contextmanager
def _caller(environment: dict[str, str]) -> Iterator[Callable[[int], Wanted]]:
    """Run a client while the context lasts; calls start runs, and return how each is to end, and its name."""
    command = [sys.executable, str(HERE / "caller.py")]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        given, said = client.stdin, client.stdout

        def call(times: int) -> Wanted:
            print(times, file=given, flush=True)
            lines = [line.split() for line in iter(said.readline, "\n") if line]
            return {run_id: (becomes, name) for run_id, becomes, name in lines}

        yield call
        given.close()


def _ends(database: Database, runs: list[str]) -> dict[str, tuple[str, str | None]]:
    connection = database.connect()
    try:
        rows = connection.read(READ_ENDS, {"runs": json.dumps(runs)})
    finally:
        connection.close()
    return {run_id: (status, error) for run_id, status, error in rows}


def _until_ended(database: Database, runs: list[str]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        live = {
            run_id: found
            for run_id, found in _ends(database, runs).items()
            if found[0] in {"queued", "running", "waiting"}
        }
        if not live:
            return
        assert time.monotonic() < end, f"{len(live)} runs have not ended: {dict(list(live.items())[:10])}"
        time.sleep(0.2)


def _told(database: Database, wanted: Wanted) -> str:
    ends = _ends(database, list(wanted))
    misses = [
        f"{name} {run_id}: {ends[run_id]}"
        for run_id, (becomes, name) in wanted.items()
        if ends[run_id][0] != becomes
    ]
    assert not misses, "\n".join([f"{len(misses)} of {len(wanted)} runs:", *misses[:20]])
    return f"{len(wanted)} runs, all ended as they should"
