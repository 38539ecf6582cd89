"""`polos worker`: ordinary Celery workers for the agents, tools and workflows of some modules."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from polos.errors import ConfigurationError
from polos.settings import Settings

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Pool(StrEnum):
    """Celery's pools that serve runs, ours first."""

    ASYNCIO = "asyncio"
    PREFORK = "prefork"
    THREADS = "threads"
    SOLO = "solo"


@dataclass(frozen=True)
class Options:
    """How to start each process. None is Celery's or polos's own default."""

    concurrency: int | None
    queues: tuple[str, ...]
    loglevel: str
    pool: str | None = None

    def command(self, node: str) -> list[str]:
        """Return the command line of a Celery worker with these options."""
        command = [sys.executable, "-m", "celery", "-A", "polos", "worker", "-n", node, "-l", self.loglevel]
        if self.concurrency is not None:
            command += ["-c", str(self.concurrency)]
        if self.queues:
            command += ["-Q", ",".join(self.queues)]
        if self.pool is not None:
            command += ["-P", self.pool]
        return command


def run_worker(
    modules: Annotated[
        list[str] | None,
        typer.Argument(help="Modules that define agents, tools and workflows; default: POLOS_IMPORTS."),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Worker processes to run.")] = 1,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="What executes at once in each; default: 100, else the CPUs."),
    ] = None,
    queues: Annotated[str, typer.Option(help="Routes (Celery queues) to serve, comma separated.")] = "",
    pool: Annotated[Pool, typer.Option(help="What executes tasks.")] = Pool.ASYNCIO,
    loglevel: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve the agents, tools and workflows that MODULES define, until SIGTERM or Ctrl-C."""
    names = tuple(name.strip() for name in queues.split(",") if name.strip())
    options = Options(concurrency, names, loglevel, None if pool is Pool.ASYNCIO else pool.value)
    app = _prepared_app(modules or [])
    raise typer.Exit(_work_here(app, options) if processes == 1 else _supervise(options, processes))


def _prepared_app(modules: list[str]) -> Any:
    """Return the Celery app, after all that would keep a worker from starting has been checked.

    Raises:
        ConfigurationError: There is no module, one cannot be imported, or a setting is wrong.
        ServiceUnavailableError: The database or the broker does not answer.
    """
    from polos.worker.app import command_app  # slow: Celery
    from polos.worker.definitions import import_modules

    if modules:
        os.environ["POLOS_IMPORTS"] = ",".join(modules)  # for this process and its children alike
    settings = Settings.from_environment()
    if not settings.imports:
        raise ConfigurationError(
            "There is nothing to serve: name the modules that define your agents, tools and workflows, as in "
            "'polos worker my_agents', or set POLOS_IMPORTS"
        )
    app = command_app()
    import_modules(settings.imports)
    _, connections = app.polos
    _check_database(connections)
    connections.check(app)
    return app


def _check_database(connections: Any) -> None:
    from polos.journal import schema
    from polos.journal.key_check import check_key

    schema.prepare(connections.database)
    check_key(connections.database)


def _node(number: int) -> str:
    """Return a Celery node name that no other worker of this machine has."""
    return f"polos-{os.getpid()}-{number}@{socket.gethostname()}"


def _work_here(app: Any, options: Options) -> int:
    """Be a Celery worker until told to stop; return its exit code."""
    worker = app.Worker(
        hostname=_node(1),
        loglevel=options.loglevel.upper(),
        concurrency=options.concurrency,
        queues=list(options.queues) or None,
        pool=options.pool,
    )
    worker.start()
    return int(worker.exitcode or 0)


# -- several processes


def _supervise(options: Options, processes: int) -> int:
    """Run so many workers, pass signals on to them, and return 1 if any of them failed."""
    living: dict[int, subprocess.Popen[bytes]] = {}
    failed = False
    with _passing_signals_on(living) as received:
        for number in range(1, processes + 1):
            if received:
                break
            # In a group of its own: Ctrl-C reaches it once, from us, and a second one would cut it short.
            child = subprocess.Popen(options.command(_node(number)), process_group=0)
            living[child.pid] = child
        while living:
            failed |= _reap(living, received)
    return int(failed)


def _reap(living: dict[int, subprocess.Popen[bytes]], received: set[int]) -> bool:
    """Wait until one process has ended; return whether it failed."""
    pid, status = os.wait()
    child = living.pop(pid, None)
    if child is None:
        return False  # an orphan that became ours, because we are the first process of a container
    child.returncode = code = os.waitstatus_to_exitcode(status)
    if code == 0 or -code in received:
        return False
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    typer.echo(f"Worker process {pid} ended {how}; {len(living)} others go on", err=True)
    return True


@contextmanager
def _passing_signals_on(living: Mapping[int, object]) -> Iterator[set[int]]:
    """Tell every living process to stop when we are; yields the signals that were sent.

    The second Ctrl-C stops them without waiting for what they do, as it does with a single worker.
    """
    received: set[int] = set()

    def pass_on(number: int, _: object) -> None:
        if number == signal.SIGINT:
            number = signal.SIGQUIT if received else signal.SIGTERM
        received.add(number)
        for pid in list(living):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, number)

    before = {number: signal.signal(number, pass_on) for number in _STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
