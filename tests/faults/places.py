"""Where a scenario takes place: which database, and on which hosts database, broker and workers are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clocks import Clocks
from daemons import HERE, postgres_daemon
from disks import SmallDisk
from holdback import Holdback
from network import Host, Network, network
from outages import restartable_postgres
from pooler import Pooler, pooler
from services import sqlite_url


@dataclass(frozen=True)
class Hosts:
    """A network with a host for the database, one for the broker, and one for each worker."""

    network: Network
    database: Host
    broker: Host
    workers: dict[str, Host] = field(default_factory=dict)

    def of_worker(self, name: str) -> Host:
        """Return the host of a worker of this name, made when it is first asked for."""
        if name not in self.workers:
            self.workers[name] = self.network.add_host()
        return self.workers[name]


@dataclass(frozen=True)
class Site:
    """A place.

    Attributes:
        server: The PostgreSQL of this scenario alone, where it has one.
        hosts: Where everything has a host of its own.
        pooler: What stands in front of that PostgreSQL.
        holdback: What stands in front of the broker.
        disk: What the database is on, where that is a small one of its own.
        clocks: Which workers go by, where each has its own.
        environment: Further settings.
    """

    database_url: str
    server: Any = None
    hosts: Hosts | None = None
    pooler: Pooler | None = None
    holdback: Holdback | None = None
    disk: SmallDisk | None = None
    clocks: Clocks | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Our own, as workers see us."""
        return HERE.address if self.hosts is None else self.hosts.network.here.address

    @property
    def broker_host(self) -> Host:
        return HERE if self.hosts is None else self.hosts.broker

    def prefix_of(self, worker: str) -> Sequence[str]:
        """Return what the command of a worker begins with."""
        if self.clocks is not None:
            return self.clocks.prefix_of(worker)
        return () if self.hosts is None else self.hosts.of_worker(worker).prefix


@dataclass(frozen=True)
class Ground:
    """What there is to make a site of: the kind of database, a folder, a PostgreSQL that scenarios share."""

    database: str
    folder: Path
    create_database: Callable[[], str]


MakeSite = Callable[[Ground], AbstractContextManager[Site]]


@contextmanager
def new_database(ground: Ground) -> Iterator[Site]:
    """An SQLite file, or a database of the PostgreSQL that is shared."""
    yield Site(sqlite_url(ground.folder) if ground.database == "sqlite" else ground.create_database())


@contextmanager
def own_postgres(ground: Ground) -> Iterator[Site]:
    """A PostgreSQL that can be restarted."""
    with restartable_postgres() as server:
        yield Site(server.url, server)


@contextmanager
def own_database(ground: Ground) -> Iterator[Site]:
    """An SQLite file, or a PostgreSQL that can be restarted."""
    with (new_database if ground.database == "sqlite" else own_postgres)(ground) as site:
        yield site


@contextmanager
def several_hosts(ground: Ground) -> Iterator[Site]:
    """PostgreSQL, broker and workers in network namespaces."""
    with network() as hosts:
        place = Hosts(hosts, hosts.add_host(), hosts.add_host())
        with postgres_daemon(place.database) as server:
            yield Site(server.url, server, place)


def behind_pooler(mode: str, *, direct: bool = False) -> MakeSite:
    """A PostgreSQL behind a pooler; `direct`: workers know the way around it."""

    @contextmanager
    def make(ground: Ground) -> Iterator[Site]:
        with postgres_daemon() as server, pooler(ground.folder / "pooler", server, mode) as between:
            environment = {"POLOS_DATABASE_DIRECT_URL": server.url} if direct else {}
            yield Site(between.url, server, pooler=between, environment=environment)

    return make


@contextmanager
def lagging_postgres(ground: Ground) -> Iterator[Site]:
    """A PostgreSQL that answers a commit long before it writes it down, and loses it in a crash."""
    lag = {
        "synchronous_commit": "off",
        "wal_writer_delay": "10s",
        "wal_writer_flush_after": "1GB",
        "wal_buffers": "64MB",
        "bgwriter_lru_maxpages": 0,
    }
    with postgres_daemon(settings=lag) as server:
        yield Site(server.url, server)
