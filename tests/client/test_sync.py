"""The sync forms: on both ways, wherever they are called from."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from offered import Gate, Number, double, gated, steps
from scripts import Folder, wait_until
from sites import Site

from polos import BatchWorkflowInput, PolosClient, events
from polos.client import SyncClient
from polos.current import current_context
from polos.operations import RunOperations
from polos.program import SyncPolos

pytestmark = pytest.mark.timeout(120)
_numbers = count(1)
NOT_FORMED = {"close", "over", "sync"}  # close has a form of its own


@pytest.fixture
def client(site: Site, way: str) -> Any:
    made = site.client(way)
    yield made
    made.sync.close()


def names_of(cls: type) -> set[str]:
    return {name for name, value in vars(cls).items() if callable(value) and not name.startswith("_")}


def test_every_method_has_a_sync_form() -> None:
    wanted = (names_of(PolosClient) | names_of(RunOperations)) - NOT_FORMED
    assert {"invoke", "follow", "wait"} <= wanted
    assert wanted <= names_of(SyncClient)
    assert {"start", "stop"} <= names_of(SyncPolos)


def test_a_form_takes_what_its_method_takes() -> None:
    for name in names_of(PolosClient) - NOT_FORMED:
        method, form = getattr(PolosClient, name), getattr(SyncClient, name)
        assert inspect.signature(form) == inspect.signature(method), name
        assert form.__doc__ == method.__doc__


# -- what they do


def test_a_run_is_started_waited_for_and_read(client: PolosClient) -> None:
    handle = client.sync.invoke("client-double", {"n": 2}, session_id="s")

    assert client.sync.wait(handle.id)["result"] == {"n": 4}
    assert client.sync.get_execution(handle.id)["session_id"] == "s"
    assert client.sync.get_result(handle.id)["result"] == Number(n=4)
    assert client.sync.cancel_execution(handle.id) is False
    assert client.sync.call(handle.get(client))["status"] == "completed"


def test_definitions_have_sync_forms(client: PolosClient) -> None:
    assert double.run_sync(client, Number(n=3)) == Number(n=6)
    assert double.run_sync(client=client, payload=Number(n=3), session_id="s") == Number(n=6)
    handle = double.invoke_sync(client, Number(n=4), user_id="u")
    assert client.sync.wait(handle.id)["user_id"] == "u"


def test_a_batch_has_a_sync_form(client: PolosClient) -> None:
    items = [BatchWorkflowInput(id="client-double", payload=Number(n=n)) for n in range(3)]
    assert [client.sync.wait(one.id)["result"]["n"] for one in client.sync.batch_invoke(items)] == [0, 2, 4]


def test_errors_come_through(client: PolosClient) -> None:
    with pytest.raises(ValueError, match="There is no run 'nothing'"):
        client.sync.get_execution("nothing")


def test_a_run_is_followed_by_a_plain_loop(client: PolosClient) -> None:
    handle = client.sync.invoke("client-steps", {"n": 2})
    types = [event.event_type for event in client.sync.follow(handle.id)]

    assert types[-1] == "workflow_finish"
    assert types.count("step_finish") == 2


def test_a_topic_is_published_to_and_read(client: PolosClient) -> None:
    topic = f"sync-{time.time_ns()}-{next(_numbers)}"
    numbers = [
        client.sync.call(events.publish(client, topic, events.EventData(data={"n": n}))) for n in range(3)
    ]
    for event in client.sync.follow_topic(topic, after=0):
        if event.data["n"] == 2:
            break

    assert [event.sequence_id for event in client.sync.list_events(topic)] == numbers


def test_an_iteration_that_is_given_up_is_closed(client: PolosClient) -> None:
    """The generator on the loop ends, with all that it holds."""
    closed = threading.Event()

    async def numbers() -> Any:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    for _ in client.sync.iterate(numbers()):
        break
    gc.collect()

    assert closed.wait(10)


# -- where they are called from


async def test_they_work_inside_a_running_loop(client: PolosClient) -> None:
    """Which they hold up meanwhile."""
    assert client.sync.get_execution(client.sync.invoke("client-double", {"n": 1}).id)["id"]
    assert double.run_sync(client, Number(n=3)) == Number(n=6)


async def test_they_work_in_the_threads_of_a_running_loop(client: PolosClient) -> None:
    sync = [asyncio.to_thread(double.run_sync, client, Number(n=n)) for n in range(8)]
    found = await asyncio.gather(*sync, double.run(client, Number(n=8)))
    assert [one.n for one in found] == [2 * n for n in range(9)]


def test_many_threads_share_one_loop(client: PolosClient) -> None:
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(lambda n: double.run_sync(client, Number(n=n)), range(40)))

    assert [one.n for one in found] == [2 * n for n in range(40)]
    assert len([thread for thread in threading.enumerate() if thread.name == "polos-client"]) == 1


def test_on_their_own_loop_they_refuse_to_wait_for_themselves(client: PolosClient) -> None:
    async def nested() -> None:
        client.sync.get_execution("nothing")

    with pytest.raises(RuntimeError, match="would wait for ever"):
        client.sync.call(nested())


def test_inside_a_run_they_refuse_to_start_another(client: PolosClient) -> None:
    class Running:
        execution_id, session_id, user_id = "run-1", "s", "u"

    token = current_context.set(Running())
    try:
        with pytest.raises(RuntimeError, match="inside run 'run-1'"):
            client.sync.invoke("client-double", {"n": 1})
    finally:
        current_context.reset(token)


def test_an_interrupted_caller_stops_waiting(client: PolosClient, tmp_path: Path) -> None:
    """Ctrl-C arrives in the main thread while it waits; nothing is left on the loop."""
    handle = gated.invoke_sync(client, Gate(file=str(tmp_path / "never")))
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        client.sync.wait(handle.id)

    assert client.sync.cancel_execution(handle.id) is True


# -- their end


def loops() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "polos-client"]


def test_no_thread_is_started_before_it_is_needed(site: Site, way: str) -> None:
    client = site.client(way)
    _ = client.sync
    assert not loops()


def test_closing_ends_the_thread_and_using_starts_another(client: PolosClient) -> None:
    client.sync.get_execution(client.sync.invoke("client-double", {"n": 1}).id)
    client.sync.close()
    wait_until(lambda: not loops())

    assert double.run_sync(client, Number(n=1)) == Number(n=2)


async def test_closing_from_elsewhere_ends_the_thread_and_what_waits_on_it(
    client: PolosClient, tmp_path: Path
) -> None:
    handle = await gated.invoke(client, Gate(file=str(tmp_path / "never")))
    waiting = asyncio.create_task(asyncio.to_thread(client.sync.wait, handle.id))
    await asyncio.to_thread(wait_until, loops)
    await client.close()

    with pytest.raises(RuntimeError, match="was closed while"):
        await asyncio.wait_for(waiting, 10)
    assert not loops()
    await client.cancel_execution(handle.id)


def test_a_forgotten_client_takes_its_thread_along(site: Site, way: str) -> None:
    client = site.client(way)
    client.sync.invoke("client-double", {"n": 1})
    del client
    gc.collect()

    wait_until(lambda: not loops())


def test_a_context_closes_it(site: Site, way: str) -> None:
    with site.client(way).sync as client:
        assert client.call(steps.run(client.client, Number(n=1))) == 1
    assert not loops()


def test_a_program_serves_without_a_loop() -> None:
    """`Polos` too, with its worker in a thread, and the default client, which gets one."""
    source = """
        @workflow
        def greet(ctx, payload: dict):
            return f"Hello {payload['name']}"

        with Polos().sync as polos:
            say(greet.run_sync(polos, {"name": "Ada"}))
        say(greet.run_sync({"name": "Bob"}))
        """
    with Folder.new({"POLOS_PRELOAD_MODELS": "0"}) as folder:
        folder.write("script.py", source)
        assert folder.start("script.py").ends().splitlines() == ["Hello Ada", "Hello Bob"]
