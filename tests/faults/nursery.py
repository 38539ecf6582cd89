"""Forks `celery -A polos worker` processes from one that has imported, once, what takes a second each time.

Nothing of polos is imported before the fork: a worker reads its settings and fault as a fresh process does.
Orders come as JSON lines on stdin: {"arguments", "environment", "folder", "log"}; a pid answers each. How
each ended is written to the file named by the first argument, as pid and exit code. Who is left at the end of
the orders is killed: nothing outlives whoever gave them, however that ended.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from typing import Any

SLOW = (
    "celery.__main__",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.worker.consumer",
    "dotenv",
    "kombu.transport.redis",
    "litellm",
    "psycopg",
    "pydantic",
    "redis.asyncio",
    "sqlalchemy.dialects.postgresql",
    "sqlmodel",
)
living: set[int] = set()


def main() -> None:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    for name in SLOW:
        importlib.import_module(name)
    assert not [name for name in sys.modules if name.split(".")[0] == "polos"]
    signal.signal(signal.SIGCHLD, _bury)
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become_worker(json.loads(line))
        living.add(pid)
        print(pid, flush=True)
    for pid in list(living):
        os.killpg(pid, signal.SIGKILL)


def _bury(*_: object) -> None:
    """Write down how children ended; the caller of a system call that this interrupts does not notice."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        living.discard(pid)
        with open(sys.argv[1], "a") as exits:
            exits.write(f"{pid} {os.waitstatus_to_exitcode(status)}\n")


def _become_worker(order: dict[str, Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    sys.path[:0] = order["environment"]["PYTHONPATH"].split(os.pathsep)
    sys.argv = ["celery", *order["arguments"]]
    from celery.__main__ import main as celery

    celery()
    os._exit(0)


if __name__ == "__main__":
    main()
