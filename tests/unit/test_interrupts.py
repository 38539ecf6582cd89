"""What SIGINT and SIGTERM do while a program serves, and after."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading

import pytest

from polos.interrupts import Interrupts, stop_signals

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_what_serves_and_then_means_what_it_meant(number: signal.Signals) -> None:
    async def serve() -> None:
        before = [signal.getsignal(each) for each in SIGNALS]
        stopped = asyncio.Event()
        with stop_signals(stopped.set):
            os.kill(os.getpid(), number)
            await stopped.wait()
        assert [signal.getsignal(each) for each in SIGNALS] == before

    asyncio.run(serve())


def test_an_interrupt_ends_what_the_task_executes() -> None:
    async def asks() -> None:
        interrupts = Interrupts()
        interrupts.install()
        try:
            os.kill(os.getpid(), signal.SIGINT)
            select.select([], [], [], 5)  # blocks the loop
        except KeyboardInterrupt:
            await asyncio.sleep(0)  # it can end in order: nothing has cancelled it
            heard.append("interrupted")
        finally:
            interrupts.remove()

    heard: list[str] = []
    asyncio.run(asks())
    assert heard == ["interrupted"]


def test_a_task_that_awaits_is_cancelled_as_ever() -> None:
    async def awaits() -> None:
        interrupts = Interrupts()
        interrupts.install()
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise
        finally:
            interrupts.remove()

    heard: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(awaits())
    assert heard == ["cancelled"]


def test_handlers_are_left_alone_where_they_are_not_ours() -> None:
    async def untouched() -> None:
        before = signal.getsignal(signal.SIGINT)
        interrupts = Interrupts()
        interrupts.remove()
        await asyncio.to_thread(interrupts.install)
        assert signal.getsignal(signal.SIGINT) is before
        interrupts.install()
        own = signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupts.remove()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert own is not before
        signal.signal(signal.SIGINT, before)

    assert threading.current_thread() is threading.main_thread()
    asyncio.run(untouched())
