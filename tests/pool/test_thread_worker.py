"""A worker in a thread of the host process."""

import asyncio
import gc
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import billiard.pool
import greenlet
import pytest
from celery import Celery, current_app
from celery._state import task_join_will_block
from kombu.asynchronous import get_event_loop
from worker_process import HERE, wait_until

from polos.errors import ServiceUnavailableError
from polos.worker.bridge import AsyncTask
from polos.worker.pool import Job
from polos.worker.thread_worker import WorkerThread


class Host:
    """An app of its own with a task that notes what it saw."""

    def __init__(self, server: str) -> None:
        self.queue = uuid.uuid4().hex
        self.app = Celery("host", broker=server, task_cls=AsyncTask, set_as_current=False)
        self.app.conf.broker_connection_retry_on_startup = True
        self.seen: list[Any] = []
        self.hold = threading.Event()
        self.drained: list[str] = []

        @self.app.task(shared=False, name="note")
        async def note(word: str) -> None:
            await asyncio.sleep(0)
            self.seen.append((word, current_app.main))

        @self.app.task(shared=False, name="note_blocking")
        def note_blocking(word: str) -> None:
            self.seen.append((word, current_app.main))

        @self.app.task(shared=False, name="fails", throws=(KeyError,))
        async def fails(word: str) -> None:
            self.seen.append(word)
            raise KeyError(word)

        @self.app.task(shared=False, name="sleeper")
        async def sleeper(word: str) -> None:
            self.seen.append(word)
            try:
                await asyncio.sleep(600)
            finally:
                self.seen.append(f"{word} unwound")

        @self.app.task(shared=False, name="blocker")
        def blocker(word: str) -> None:
            self.seen.append(word)
            self.hold.wait(30)

        self.worker = WorkerThread(
            self.app, concurrency=2, queues=[self.queue], name="host", on_drain=self._note_drain
        )

    def _note_drain(self) -> None:
        self.drained.append(threading.current_thread().name)

    def send(self, task: str, word: str) -> None:
        self.app.send_task(task, (word,), queue=self.queue)


@pytest.fixture
def host(pool_app: ModuleType) -> Iterator[Host]:
    host = Host(f"redis://127.0.0.1:{pool_app.PORT}/0")
    yield host
    host.hold.set()
    host.worker.stop()
    assert not host.worker.is_alive
    host.app.close()


def our_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("polos-")}


def test_start_stop_start_runs_tasks_each_time(host: Host) -> None:
    others = our_threads()  # of tests before this one, in the same process
    for round_ in ("first", "second", "third"):
        host.worker.start()
        assert host.worker.pool is not None
        host.send("note", round_)
        host.send("note_blocking", round_)
        wait_until(lambda r=round_: host.seen.count((r, "host")) == 2)
        host.worker.stop()
        assert (host.worker.is_alive, host.worker.pool, host.worker.error) == (False, None, None)
        wait_until(lambda: our_threads() <= others)
    assert host.drained == ["polos-worker"] * 3


def test_a_message_sent_between_two_lives_is_not_swallowed_by_the_first(host: Host) -> None:
    for number in range(5):
        host.worker.start()
        host.worker.stop()
        host.send("note", f"between {number}")
    host.worker.start()
    wait_until(lambda: len(host.seen) == 5)


def test_stop_of_an_idle_worker_does_not_wait_for_its_pending_pop(host: Host) -> None:
    took = 0.0
    for number in range(3):
        host.worker.start()
        host.send("note", str(number))
        wait_until(lambda n=number: len(host.seen) == n + 1)
        began = time.monotonic()
        host.worker.stop()
        took += time.monotonic() - began
    assert took < 1.2  # left to the pop's own time-out: 3 s


def test_repeated_starts_leave_no_file_descriptors_behind(host: Host) -> None:
    def open_files() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0

    host.worker.start()
    host.worker.stop()
    before = open_files()
    for _ in range(3):
        host.worker.start()
        host.worker.stop()
    wait_until(lambda: open_files() <= before)


def test_finished_failed_and_cancelled_tasks_leave_nothing_behind(host: Host) -> None:
    def left() -> int:
        gc.collect()
        things = gc.get_objects()
        bridges = [thing for thing in things if issubclass(type(thing), greenlet.greenlet)]
        # Each thread that asked for the current greenlet has a plain one of its own.
        return sum(isinstance(t, Job) for t in things) + sum(
            type(b) is not greenlet.greenlet for b in bridges
        )

    host.worker.start()
    before = left()
    for number in range(30):
        host.send("note", str(number))
        host.send("note_blocking", str(number))
        host.send("fails", str(number))
    wait_until(lambda: len(host.seen) == 90)
    wait_until(lambda: host.worker.pool and host.worker.pool.in_flight == 0)
    wait_until(lambda: left() <= before)
    host.send("sleeper", "cancelled")
    wait_until(lambda: "cancelled" in host.seen)
    host.worker.stop()
    wait_until(lambda: left() <= before)


def test_a_drain_hook_that_fails_does_not_keep_the_others_or_the_end(host: Host) -> None:
    host.worker.start()
    pool = host.worker.pool
    assert pool is not None
    pool.on_drain.insert(0, lambda: 1 / 0)
    host.worker.stop()
    assert host.drained == ["polos-worker"]


def snapshot() -> dict[str, Any]:
    root = logging.getLogger()
    celery = logging.getLogger("celery")
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
    return {
        "signals": [signal.getsignal(number) for number in numbers],
        "logging": [(list(logger.handlers), logger.level, logger.propagate) for logger in (root, celery)],
        "environment": dict(os.environ),
        "streams": (sys.stdout, sys.stderr, sys.excepthook, threading.excepthook),
        "socket timeout": socket.getdefaulttimeout(),
        "hub": get_event_loop(),
        "lock": billiard.pool.Lock,
        "switch interval": sys.getswitchinterval(),
        "get() allowed": not task_join_will_block(),
        "current app": current_app._get_current_object(),
    }


def test_the_host_process_is_left_as_it_was(host: Host) -> None:
    before = snapshot()
    mutex = host.app.clock.mutex
    host.worker.start()
    host.send("note", "ran")
    wait_until(lambda: host.seen)
    assert snapshot() == before
    assert host.app.clock.mutex is mutex
    host.worker.stop()
    assert snapshot() == before


def test_it_starts_and_stops_in_a_thread_that_is_not_the_main_one(host: Host) -> None:
    def live() -> None:
        host.worker.start()
        host.worker.stop()

    thread = threading.Thread(target=live)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert host.drained


async def test_it_works_beside_the_loop_of_the_host(host: Host) -> None:
    await asyncio.to_thread(host.worker.start)
    pool = host.worker.pool
    assert pool is not None
    assert pool.loop is not asyncio.get_running_loop()
    host.send("note", "ran")
    async with asyncio.timeout(10):
        while not host.seen:
            await asyncio.sleep(0.01)
    await asyncio.to_thread(host.worker.stop)


@pytest.mark.parametrize("busy", ["sleeper", "blocker"])
def test_stop_does_not_wait_for_a_busy_task(host: Host, busy: str) -> None:
    host.worker.start()
    host.send(busy, "busy")
    wait_until(lambda: host.seen == ["busy"])
    began = time.monotonic()
    host.worker.stop()
    assert time.monotonic() - began < 2
    assert not host.worker.is_alive
    if busy == "sleeper":
        assert host.seen == ["busy", "busy unwound"]


def test_stop_is_idempotent_and_harmless_before_start(host: Host) -> None:
    host.worker.stop()
    host.worker.start()
    host.worker.start()
    host.worker.stop()
    host.worker.stop()
    assert host.drained == ["polos-worker"]


def test_a_task_of_the_worker_may_stop_it(host: Host) -> None:
    @host.app.task(shared=False, name="ends_it")
    def ends_it(word: str) -> None:
        host.worker.stop()
        host.seen.append(word)

    host.worker.start()
    host.send("ends_it", "stopped")
    wait_until(lambda: host.seen == ["stopped"] and not host.worker.is_alive)


def test_run_coroutine_returns_from_the_loop_and_refuses_its_own_thread(host: Host) -> None:
    host.worker.start()
    pool = host.worker.pool
    assert pool is not None

    async def where() -> str:
        return threading.current_thread().name

    async def nested() -> None:
        pool.run_coroutine(where())

    assert pool.run_coroutine(where(), timeout_seconds=5) == "polos-loop"
    with pytest.raises(RuntimeError, match="await"):
        pool.run_coroutine(nested(), timeout_seconds=5)
    with pytest.raises(TimeoutError):
        pool.run_coroutine(asyncio.sleep(30), timeout_seconds=0.05)


def test_start_without_a_broker_says_where_it_looked() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        host = Host(f"redis://:secret@127.0.0.1:{port}/0")
        with pytest.raises(ServiceUnavailableError, match=str(port)) as caught:
            host.worker.start(timeout_seconds=0.5)
    assert "secret" not in str(caught.value)
    wait_until(lambda: not host.worker.is_alive)
    host.app.close()


def test_it_works_on_a_transport_without_a_hub() -> None:
    host = Host("memory://")
    host.worker.start()
    host.send("note", "async")
    host.send("note_blocking", "blocking")
    wait_until(lambda: len(host.seen) == 2)
    host.worker.stop(timeout_seconds=5)
    assert not host.worker.is_alive
    host.app.close()


Program = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def program(pool_app: ModuleType, tmp_path: Path) -> Iterator[Program]:
    processes: list[subprocess.Popen[str]] = []

    def run(mode: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "host_program.py"), mode]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def read_to(process: subprocess.Popen[str], line: str) -> list[str]:
    assert isinstance(process.stdout, io.TextIOBase)
    lines: list[str] = []
    while line not in lines:
        text = process.stdout.readline()
        assert text, process.stderr and process.stderr.read()
        lines.append(text.strip())
    return lines


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("busy_async", 0),
        ("busy_sync", 0),
        ("busy_in_thread", 0),
        ("busy_sync-exit", 3),
        ("busy_async-error", 1),
    ],
)
def test_a_script_with_a_busy_task_ends_within_two_seconds(program: Program, mode: str, code: int) -> None:
    process = program(mode)
    read_to(process, "ends")
    began = time.monotonic()
    assert process.wait(10) == code
    assert time.monotonic() - began < 2
    output = (process.stdout.read() if process.stdout else "").split()
    errors = process.stderr.read() if process.stderr else ""
    assert "drained" in output
    assert ("unwound" in output) == mode.startswith("busy_async")
    assert ("Traceback" in errors) == (code == 1), errors


def test_a_script_that_stops_its_worker_ends_at_once_and_quietly(program: Program) -> None:
    process = program("stopped")
    lines = read_to(process, "ends")
    assert process.wait(10) == 0
    assert lines == ["ran", "drained", "ends"]
    assert process.stderr
    assert process.stderr.read() == ""


def test_tasks_run_while_the_main_thread_waits_for_input(program: Program) -> None:
    process = program("input")
    read_to(process, "ran")
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()
    assert "ends" in read_to(process, "ends")
    assert process.wait(5) == 0


def test_ctrl_c_in_input_ends_the_script_within_two_seconds(program: Program) -> None:
    process = program("input")
    read_to(process, "ran")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(10)
    assert time.monotonic() - began < 2
    assert process.stdout
    assert "drained" in process.stdout.read()
