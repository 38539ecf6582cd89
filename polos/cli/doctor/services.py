"""Checks of what is configured: does it answer, can it be used, is it safe?"""

from __future__ import annotations

import ipaddress
import shutil
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from polos.cli.doctor.findings import Check, Finding, note, ok, wrong
from polos.cli.journal import find_database
from polos.embedded.home import MOUNTINFO, NETWORK_FILE_SYSTEMS, Home, file_system
from polos.embedded.valkey import EmbeddedValkey
from polos.errors import EncryptionError, SchemaVersionError
from polos.journal import health, schema
from polos.journal.database import Database
from polos.journal.key_check import check_key
from polos.settings import Settings, hide_password
from polos.streaming.health import ask_redis
from polos.streaming.server import RedisServer
from polos.worker.broker import ask_broker, find_broker

MAX_CLOCK_SECONDS = 5.0
MIN_FREE_BYTES = 500_000_000
MEGABYTE = 1_000_000


def service_checks(settings: Settings) -> dict[str, Check]:
    """Return the checks of database, broker and Redis, by what they are about."""
    return {
        "database": partial(check_database, settings),
        "broker": partial(check_broker, settings),
        "notices": partial(check_notices, settings),
    }


# -- the database


def check_database(settings: Settings) -> Iterator[Finding]:
    """Tell where the journal is, whether it answers, and whether it may be written."""
    database = find_database(settings)
    yield ok("database", f"{database} ({_origin(settings.database_url, 'POLOS_DATABASE_URL', settings)})")
    if database.is_sqlite:
        yield from _check_file(database)
        if not database.path.exists():
            yield note("database", "the file is not there yet; the first worker or script creates it")
            return
    answer = health.ask(database)
    yield ok("database", f"{answer.version} answers in {_milliseconds(answer.latency_seconds)}")
    yield from _check_schema(database, answer.revision)
    yield from _check_clock(answer.clock_ahead_seconds)
    if answer.pooled and not settings.database_direct_url:
        yield note(
            "database",
            "a connection pooler is in between, so the death of a worker is told by its silence only, after "
            f"{settings.silence_limit_seconds:g} seconds",
            "let POLOS_DATABASE_DIRECT_URL of the workers name the server itself",
        )


def _check_schema(database: Database, revision: str | None) -> Iterator[Finding]:
    if revision is None:
        yield note("database", "it has no schema yet; the first worker creates it, or: polos db upgrade")
        return
    try:
        schema.check(database)
        check_key(database)
    except (SchemaVersionError, EncryptionError) as error:
        yield wrong("database", str(error))
        return
    health.try_to_write(database)
    yield ok("database", f"schema {revision} is the one this version needs, and can be written")


def _check_clock(ahead_seconds: float) -> Iterator[Finding]:
    if abs(ahead_seconds) > MAX_CLOCK_SECONDS:
        yield note(
            "clocks",
            f"the database's clock is {abs(ahead_seconds):.1f} seconds "
            f"{'ahead of' if ahead_seconds > 0 else 'behind'} this machine's; polos goes by the former only",
            "logs are easier to compare when both are set by NTP",
        )


def _check_file(database: Database) -> Iterator[Finding]:
    if database.sqlite_sync == "normal":
        yield note(
            "database",
            "SQLite with synchronous=normal: no crash of a process costs anything, a power cut may cost the "
            "last commits",
            "POLOS_SQLITE_SYNC=full, if that matters",
        )
    folder = _existing(database.path.parent.resolve())
    kind = _file_system(folder)
    if kind in NETWORK_FILE_SYSTEMS:
        yield wrong(
            "database",
            f"{str(folder)!r} is on a network file system ({kind}), whose locks cannot be trusted",
            "move it to a local disk, or use PostgreSQL",
        )
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        yield wrong(
            "database",
            f"only {free // MEGABYTE} MB are free on the disk of {str(folder)!r}",
            "make room: a full disk stops every run until there is some",
        )


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _file_system(folder: Path) -> str | None:
    try:
        return file_system(folder, MOUNTINFO.read_text(errors="surrogateescape"))
    except OSError:
        return None  # not Linux: nothing to judge by


# -- the broker


def check_broker(settings: Settings) -> Iterator[Finding]:
    """Tell which broker is configured and by what, whether it answers, and who else may use it."""
    found = find_broker(settings)
    url = found.url or EmbeddedValkey(settings.home).look()
    if url is None:
        yield note(
            "broker",
            f"embedded, in {str(_home(settings))!r}: not running; a worker or script would start it",
        )
        return
    origin = found.origin if found.url else f"embedded, in {str(_home(settings))!r}"
    yield ok("broker", f"{hide_password(url)} ({origin})")
    if found.url:
        yield from _check_password(found.url)
    answer = ask_broker(found, url)
    yield ok("broker", f"{answer.name} answers in {_milliseconds(answer.latency_seconds)}")
    yield from _check_eviction("broker", answer.evicts)


def _check_password(urls: str) -> Iterator[Finding]:
    """Tell of brokers that ask for no password although others than this machine reach them."""
    for url in urls.split(";"):
        parts = urlsplit(url)
        if parts.password or not parts.hostname or _is_loopback(parts.hostname):
            continue
        text = f"{hide_password(url)} names no password, and {parts.hostname!r} is not this machine"
        advice = "whoever reaches it can command the workers: give it a password, keep its port to yourself"
        yield wrong("broker", text, advice) if _is_public(parts.hostname) else note("broker", text, advice)


def _is_loopback(host: str) -> bool:
    return all(address.is_loopback for address in _addresses(host))


def _is_public(host: str) -> bool:
    return any(address.is_global for address in _addresses(host))


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the addresses of a host; one that stands for others when it is not known here."""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except OSError:
        return [ipaddress.ip_address("0.0.0.0")]  # noqa: S104 - nothing is bound to it
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def _check_eviction(subject: str, policy: str) -> Iterator[Finding]:
    if policy.startswith("allkeys"):
        yield wrong(
            subject,
            f"maxmemory-policy {policy}: a full Redis removes any key, Celery's queues and bindings too",
            "set maxmemory-policy to noeviction",
        )
    elif policy:
        yield note(subject, f"maxmemory-policy is {policy}; Celery expects noeviction")


# -- notices


def check_notices(settings: Settings) -> Iterator[Finding]:
    """Tell which Redis carries notices, and whether it answers."""
    if settings.redis_url:
        server = RedisServer.from_url(settings.redis_url)
        yield ok("notices", f"{server} (POLOS_REDIS_URL)")
        answer = ask_redis(server)
        yield ok("notices", f"{answer.name} answers in {_milliseconds(answer.latency_seconds)}")
        return
    found = find_broker(settings)
    if found.url and found.at(found.url).redis is None:
        yield wrong(
            "notices",
            "the broker is RabbitMQ, which carries no notices",
            "set POLOS_REDIS_URL to a Redis or Valkey, such as redis://localhost:6379/0",
        )
        return
    yield ok("notices", "through the broker")


def _origin(url: str, variable: str, settings: Settings) -> str:
    return variable if url else f"embedded, in {str(_home(settings))!r}"


def _home(settings: Settings) -> Path:
    return Home(settings.home.expanduser().resolve()).path


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
