"""Imported by workers through POLOS_IMPORTS: counts what they send, and tells it on a socket."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

from benchmarks import ledger

FOLDER_VARIABLE = "BENCHMARKS_COUNTS"


def socket_path(folder: Path, pid: int) -> Path:
    """Return where the worker `pid` tells its counts."""
    return folder / f"{pid}.sock"


def read_counts(folder: Path, pid: int) -> dict[str, int]:
    """Return the counts of the worker `pid` so far."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(socket_path(folder, pid)))
        with connection.makefile() as answer:
            counts: dict[str, int] = json.load(answer)
    return counts


def _tell(counts: ledger.Ledger, listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(json.dumps(counts.counts()).encode())


def _serve(folder: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(socket_path(folder, os.getpid())))
    listener.listen()
    threading.Thread(
        target=_tell, args=(ledger.install(), listener), name="benchmark-counts", daemon=True
    ).start()


if folder := os.environ.get(FOLDER_VARIABLE):
    _serve(Path(folder))
