"""F30: the disk of the database is full, or the database refuses all writes; and then there is room again."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
from arena import BOOT_SECONDS, LOOK_AGAIN_SECONDS, PATIENCE_SECONDS, Arena
from daemons import PostgresDaemon, postgres_daemon
from disks import SmallDisk, small_disk
from places import Ground, Site
from scenarios import only_the_struck_are_dead
from services import sqlite_url
from week_program import MIXED

from polos.errors import JournalUnavailableError

SQLITE_MEGABYTES, POSTGRES_MEGABYTES = 48, 256
POSTGRES_SETTINGS = {"min_wal_size": "32MB", "max_wal_size": "64MB", "checkpoint_timeout": "30s"}
REST_SECONDS = 3.0  # between shortages
LENGTHS = (0.4, 1.6)  # of a shortage, in silence limits
ABOUT = (0.9, 1.1)
QUIET = {"POLOS_SILENCE_LIMIT_SECONDS": "4"}
WHY = re.compile(r"(database|beat).*(disk|[Nn]o space|full|read-?only|closed the connection|refused)")
SEGMENTS = 30  # of PostgreSQL's log: more than it keeps for use again
Change = Callable[[], None]


@contextmanager
def on_small_disk(ground: Ground) -> Iterator[Site]:
    """The database, and nothing else, on a small disk."""
    if ground.database == "sqlite":
        with small_disk(megabytes=SQLITE_MEGABYTES) as disk:
            yield Site(sqlite_url(disk.path), disk=disk)
        return
    with (
        small_disk(megabytes=POSTGRES_MEGABYTES) as disk,
        postgres_daemon(settings=POSTGRES_SETTINGS, home=disk.path) as server,
    ):
        yield Site(server.url, server, disk=disk)


async def scarcity(arena: Arena) -> None:
    """Take room and permission to write away in turn: runs pause, the reason is told, nothing is lost."""
    plan, chance = arena.plan, random.Random(arena.plan.seed)
    await arena.hire(plan.workers)
    took: list[float] = []
    ends = time.monotonic() + plan.seconds
    async with arena.load(MIXED):
        for begin, end in itertools.cycle(_shortages(arena)):
            await asyncio.sleep(REST_SECONDS)  # work is under way
            length = chance.uniform(*LENGTHS) * arena.client.settings.silence_limit_seconds
            took.append(await _shortage(arena, begin, end, length))
            if time.monotonic() > ends:
                break
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    only_the_struck_are_dead(arena)
    arena.notes["works again after"] = f"{statistics.median(took):.1f} s, at most {max(took):.1f} s"
    _is_whole(arena)
    _nobody_is_at_a_loss(arena)


async def quiet_scarcity(arena: Arena) -> None:
    """Refuse writes for about as long as nobody may be silent, while nothing is due: nobody is judged."""
    plan, chance = arena.plan, random.Random(arena.plan.seed)
    limit = arena.client.settings.silence_limit_seconds
    begin, end = _shortages(arena)[-1]
    await arena.hire(plan.workers)
    ends = time.monotonic() + plan.seconds
    async with arena.load(["week-plain"]):
        while time.monotonic() < ends:
            await asyncio.sleep(limit + REST_SECONDS)  # everybody watches for long enough to judge
            await asyncio.to_thread(begin)
            await asyncio.sleep(chance.uniform(*ABOUT) * limit)
            await asyncio.to_thread(end)
            arena.faults += 1
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    only_the_struck_are_dead(arena)


async def _shortage(arena: Arena, begin: Change, end: Change, seconds: float) -> float:
    """Have one for so long, from when it is noticed; return how long it takes until work goes on."""
    noticed = threading.Event()
    enduring = asyncio.create_task(asyncio.to_thread(_endured, arena, begin, end, seconds, noticed))
    arena.faults += 1
    await arena.until(lambda: noticed.is_set() or enduring.done(), 2 * PATIENCE_SECONDS, "nobody notices")
    await _client_is_told_why(arena)
    over_at = await enduring
    await arena.until(lambda: _begun_since(arena, over_at), PATIENCE_SECONDS, "no work after the shortage")
    return time.time() - over_at


def _endured(arena: Arena, begin: Change, end: Change, seconds: float, noticed: threading.Event) -> float:
    """Return when it was over. Not on the loop, which stands still while the database is down."""
    said, deadline = _reasons(arena), time.monotonic() + PATIENCE_SECONDS
    begin()
    try:
        while _reasons(arena) == said:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no worker notices the shortage in {PATIENCE_SECONDS:g} s")
            time.sleep(LOOK_AGAIN_SECONDS)
        noticed.set()
        time.sleep(seconds)  # a shortage has a length
    finally:
        end()
    return time.time()


def _reasons(arena: Arena) -> int:
    """Return how often workers have said what is amiss."""
    return sum(len(WHY.findall(log)) for _, log in arena.crew.logs())


async def _client_is_told_why(arena: Arena) -> None:
    """Start a run that is not accepted, for a reason; some room may be left for one, and that is as well."""
    try:
        await asyncio.wait_for(arena.client.invoke("week-plain", {"number": 0}), BOOT_SECONDS)
    except JournalUnavailableError as error:
        arena.notes["a client hears"] = str(error).splitlines()[0]


def _begun_since(arena: Arena, moment: float) -> bool:
    return any(entry.at > moment and entry.phase == "start" for entry in arena.ledger.read()[-50:])


def _is_whole(arena: Arena) -> None:
    """See that SQLite finds its file as it should be."""
    if arena.database.is_sqlite:
        with closing(sqlite3.connect(arena.database.path)) as connection:
            [(told,)] = connection.execute("PRAGMA integrity_check").fetchall()
        if told != "ok":
            arena.miss("whole", told)


def _nobody_is_at_a_loss(arena: Arena) -> None:
    """A shortage is a line of the log, not a traceback."""
    for worker, log in arena.crew.logs():
        if (place := log.find("Traceback")) >= 0:
            arena.miss("told", f"{worker.name} is at a loss:\n{log[max(place - 300, 0) : place + 3000]}")


# -- what is taken away


def _shortages(arena: Arena) -> list[tuple[Change, Change]]:
    disk, server = arena.site.disk, arena.site.server
    assert disk is not None
    if arena.database.is_sqlite:
        files = [arena.database.path, Path(f"{arena.database.path}-wal")]
        return [(disk.fill, disk.clear), (lambda: disk.forbid(*files), disk.allow)]
    return [
        (disk.fill, lambda: _room_again(disk, server)),
        (lambda: _no_room_for_the_log(disk, server), lambda: _room_again(disk, server)),
        (lambda: _read_only(server, "on"), lambda: _read_only(server, "off")),
    ]


def _no_room_for_the_log(disk: SmallDisk, server: PostgresDaemon) -> None:
    """Fill the disk and the log, without which the server cannot go on: it crashes, and may stay down."""
    disk.fill()
    with suppress(psycopg.OperationalError), psycopg.connect(server.url, autocommit=True) as admin:
        for _ in range(SEGMENTS):
            admin.execute("SELECT pg_logical_emit_message(false, 'full', 'full')")
            admin.execute("SELECT pg_switch_wal()")


def _room_again(disk: SmallDisk, server: PostgresDaemon) -> None:
    """Make room, and start a server that has given up meanwhile, as somebody in charge would."""
    disk.clear()
    server.start_if_ended()


def _read_only(server: PostgresDaemon, value: str) -> None:
    """Have each transaction refuse to write, as a provider does whose storage runs out, or a standby."""
    with psycopg.connect(
        server.url, autocommit=True, options="-c default_transaction_read_only=off"
    ) as admin:
        admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        admin.execute("SELECT pg_reload_conf()")
