"""A wire between a client and its server, which can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from urllib.parse import urlsplit


class Wire:
    """Passes on what a client and a server say to each other, connection by connection.

    Args:
        server: URL of the server.
        answers: For each connection in turn, after how many bytes of the server's answer it is cut, None for
            never; 0 cuts when the server begins to answer. Later connections are whole.
        replaced: Bytes of the answer, and bytes of the same length in their place.
    """

    def __init__(
        self, server: str, answers: Iterable[int | None] = (), *, replaced: tuple[bytes, bytes] = (b"", b"")
    ) -> None:
        parts = urlsplit(server)
        self._target = (parts.hostname or "", parts.port or 0)
        self._answers = chain(answers, repeat(None))
        self._replaced = replaced
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))  # refuses connections until it listens
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.connections = 0

    def listen(self) -> None:
        self._socket.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End the connections that are open."""
        for one in self._open:
            _end(one)

    def close(self) -> None:
        _end(self._socket)
        self._socket.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self.connections += 1
                server = socket.create_connection(self._target)
                self._open += [client, server]
                limit = next(self._answers)
                threading.Thread(target=self._pass, args=(client, server, None), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, limit), daemon=True).start()

    def _pass(self, source: socket.socket, drain: socket.socket, limit: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source.getpeername() == self._target and self._replaced[0]:
                    data = data.replace(*self._replaced)
                if limit is not None and passed + len(data) > limit:
                    drain.sendall(data[: limit - passed])
                    break
                drain.sendall(data)
                passed += len(data)
        _end(source)
        _end(drain)


@contextlib.contextmanager
def wire(server: str, answers: Iterable[int | None] = (), **options: tuple[bytes, bytes]) -> Iterator[Wire]:
    """Lay a wire that listens while the context lasts."""
    laid = Wire(server, answers, **options)
    laid.listen()
    try:
        yield laid
    finally:
        laid.close()


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
