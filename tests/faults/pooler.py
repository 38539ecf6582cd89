"""PgBouncer between workers and their PostgreSQL, whose sessions it moves about as much as it may."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from daemons import HERE, Daemon, PostgresDaemon, free_port

SERVER_LIFETIME_SECONDS = 3  # the default is an hour; whoever relies on a session notices here
_CONFIGURATION = """
[databases]
* = host={host} port={server_port} user=postgres
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
max_client_conn = 1000
default_pool_size = 50
server_lifetime = {lifetime}
user = {user}
"""


def why_no_pooler() -> str:
    """Return why there is no PgBouncer here; empty where there is."""
    return "" if _program() else "pgbouncer is not on PATH (apt-get install pgbouncer)"


def _program() -> str | None:
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class Pooler(Daemon):
    """A PgBouncer."""

    @property
    def url(self) -> str:
        return f"postgresql://postgres:@{self.host.address}:{self.port}/postgres"

    def answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2):
            return True
        return False


@contextmanager
def pooler(folder: Path, server: PostgresDaemon, mode: str) -> Iterator[Pooler]:
    """Run a PgBouncer that pools by `mode`, session or transaction, while the context lasts."""
    program = _program()
    assert program is not None, why_no_pooler()
    folder.mkdir(parents=True)
    port = free_port()
    text = _CONFIGURATION.format(
        host=HERE.address,
        server_port=server.port,
        port=port,
        mode=mode,
        lifetime=SERVER_LIFETIME_SECONDS,
        user=server.user,
    )
    (folder / "pgbouncer.ini").write_text(text)
    between = Pooler([program, str(folder / "pgbouncer.ini")], folder, HERE, port)
    try:
        between.start()
        yield between
    finally:
        between.kill()
