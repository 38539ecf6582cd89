"""The process that stops a folder's Valkey server once nobody uses the folder any more.

Run as a file (`python -I -S watcher.py`), it starts the server and the watching on behalf of a
process that may die any moment. It imports little, to start fast and stay small.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import time

USERS = "users.lock"  # shared: each user; exclusive: the watcher, from finding nobody to its end
WATCHING = "watching.lock"  # exclusive: the watcher
SERVER = "server.json"  # exclusive: the server, by inheritance; holds its port, password and pid
SOCKET = "valkey.sock"
STOP_SECONDS = 1.0


def ask(where: int | str, password: str, *command: str, timeout_seconds: float = 1.0) -> bytes:
    """First reply bytes of a Valkey server to one command; empty when it hangs up instead.

    Args:
        where: A port on loopback, or the path of a unix socket.
        password: What must open the server. PING alone would also please a stranger's.
        *command: The words of the command.
        timeout_seconds: Limit of each wait: for the connection and for either reply.

    Raises:
        OSError: Nobody answers there, or a server that does not know the password.
    """
    address, family = (
        (("127.0.0.1", where), socket.AF_INET) if isinstance(where, int) else (where, socket.AF_UNIX)
    )
    with socket.socket(family) as link:
        link.settimeout(timeout_seconds)
        link.connect(address)
        link.sendall(_encode("AUTH", password))
        if link.recv(256) != b"+OK\r\n":
            raise ConnectionRefusedError("another server has this address")
        link.sendall(_encode(*command))
        return link.recv(256)


def _encode(*words: str) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words]
    return b"".join(parts)


def read_record(server: int) -> dict[str, object]:
    """What an open server file says: `port` (0 for the socket), `password`, `pid`; {} when nothing whole."""
    try:
        record = json.loads(os.pread(server, 4096, 0))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def write_record(server: int, record: dict[str, object]) -> None:
    """Replace the content of the server file in place: a new file would not carry the lock."""
    text = json.dumps(record).encode()
    os.pwrite(server, text, 0)
    os.ftruncate(server, len(text))


def _watch(users: int, server: int, watching: int, grace_seconds: float) -> None:
    while True:
        fcntl.flock(users, fcntl.LOCK_EX)  # sleeps until there is no user
        fcntl.flock(users, fcntl.LOCK_UN)
        time.sleep(grace_seconds)
        if _try_exclusive(users):
            break
    _stop_server(server)
    # Users last: whoever comes next must find the other two free, and start a server and a watcher.
    for fd in (server, watching, users):
        os.close(fd)


def _stop_server(server: int) -> None:
    record = read_record(server)
    patience = STOP_SECONDS if _asked_to_stop(record) else 0.0
    # A held lock proves that the pid written beside it is still that of the server.
    if not _wait_exclusive(server, patience) and isinstance(pid := record.get("pid"), int):
        os.kill(pid, signal.SIGKILL)  # it keeps nothing on disk that could be spoilt
        _wait_exclusive(server, STOP_SECONDS)


def _asked_to_stop(record: dict[str, object]) -> bool:
    try:
        where = int(str(record["port"])) or SOCKET
        ask(where, str(record["password"]), "SHUTDOWN", "NOSAVE", timeout_seconds=STOP_SECONDS)
    except (OSError, KeyError, ValueError):
        return False  # it is gone, or hangs, or its socket was deleted
    return True


def _wait_exclusive(fd: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (locked := _try_exclusive(fd)) and time.monotonic() < deadline:
        time.sleep(0.005)
    return locked


def _try_exclusive(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start_server(binary: str, locked_server: int, watching: int) -> None:
    """Start the server with the lock it holds for life, and write down its pid."""
    pid = os.fork()
    if pid == 0:
        if watching >= 0:
            os.set_inheritable(watching, False)
        os.execv(binary, [binary, "-"])  # the configuration, with its password, is on standard input
    write_record(locked_server, {**read_record(locked_server), "pid": pid})


def _start_watching(locked_server: int, watching: int, grace_seconds: float) -> None:
    # Opened anew, not inherited: a lock belongs to the opening, and users and server hold theirs.
    users, server = os.open(USERS, os.O_RDWR), os.open(SERVER, os.O_RDWR)
    if os.fork() == 0:
        if locked_server >= 0:
            os.close(locked_server)
        _watch(users, server, watching, grace_seconds)
        sys.exit()


def main(folder: str, grace_seconds: float, binary: str, locked_server: int, watching: int) -> None:
    """Start what is wanted, detached, and return.

    Args:
        folder: The folder served. Its files are reached from within, wherever it is moved.
        grace_seconds: How long the server is kept after its last user.
        binary: The server program.
        locked_server: Descriptor of the locked server file, or -1 when a server runs.
        watching: Descriptor of the locked watching file, or -1 when a watcher runs.
    """
    os.chdir(folder)
    # The watcher first: killed in between, we leave no server that nobody would stop.
    if watching >= 0:
        _start_watching(locked_server, watching, grace_seconds)
    if locked_server >= 0:
        _start_server(binary, locked_server, watching)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
