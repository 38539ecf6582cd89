"""A server that is away, wires that break, answers that refuse: nothing is done twice, nothing is lost."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from offered import Gate, Number, gated, steps
from sites import Site
from wires import Wire, wire

from polos import PolosClient
from polos.errors import AccessDeniedError, ConfigurationError, ServerUnavailableError
from polos.events import EventData
from polos.remote.connection import ServerConnection
from polos.transport import RunRequest, ServerAddress

pytestmark = pytest.mark.timeout(120)

PROMPT = (b"retry: 1000", b"retry: 0005")  # the server's advice for readers that were cut off


def client_of(site: Site, url: str) -> PolosClient:
    return PolosClient(url, site.keys["default"], settings=site.settings)


def runs_of(site: Site, session_id: str) -> int:
    """Return how many runs a session has."""
    listed = httpx.get(
        f"{site.url}/api/v1/workflows/runs",
        params={"session_id": session_id},
        headers={"Authorization": f"Bearer {site.keys['default']}"},
    )
    return len(listed.raise_for_status().json())


def unique() -> str:
    return f"outage-{time.time_ns()}"


# -- what is sent again, and what is not


@pytest.mark.parametrize("answers", [[0], [0, 40, 3]])
async def test_a_run_whose_answer_is_lost_is_not_started_twice(site: Site, answers: list[int]) -> None:
    session = unique()
    with wire(site.url, answers) as cut:
        async with client_of(site, cut.url) as client:
            handle = await client.invoke("client-double", {"n": 1}, session_id=session)
            assert (await client.wait(handle.id))["session_id"] == session
        assert cut.connections > len(answers)
    assert runs_of(site, session) == 1


async def test_a_batch_whose_answer_is_lost_is_not_started_twice(site: Site) -> None:
    session = unique()
    requests = [
        RunRequest(workflow_id="client-double", payload={"n": n}, session_id=session) for n in range(3)
    ]
    with wire(site.url, [0, 0]) as cut:
        async with client_of(site, cut.url) as client:
            handles = await client.start_runs(requests)
            assert [(await client.wait(one.id))["result"]["n"] for one in handles] == [0, 2, 4]
    assert runs_of(site, session) == 3


async def test_a_cancellation_whose_answer_is_lost_is_still_true(site: Site, tmp_path: Path) -> None:
    async with site.client("direct") as direct:
        handle = await gated.invoke(direct, Gate(file=str(tmp_path / "never")))
    with wire(site.url, [None, 0]) as cut:
        async with client_of(site, cut.url) as client:
            await client.get_execution(handle.id)
            cut.cut()  # so that the cancellation has a connection of its own, the second
            assert await client.cancel_execution(handle.id) is True


async def test_an_event_that_may_have_arrived_is_not_published_again(site: Site) -> None:
    topic = unique()
    with wire(site.url, [0]) as cut:
        async with client_of(site, cut.url) as client:
            with pytest.raises(ServerUnavailableError, match="may have been done"):
                await client.publish_events(topic, [EventData(data={"n": 1})])
            assert len(await client.list_events(topic)) == 1


async def test_a_server_that_is_away_for_a_moment_is_waited_for(site: Site) -> None:
    cut = Wire(site.url)
    timer = threading.Timer(0.5, cut.listen)
    timer.start()
    try:
        async with client_of(site, cut.url) as client:
            handle = await client.invoke("client-double", {"n": 1})
            assert (await client.wait(handle.id))["result"] == {"n": 2}
    finally:
        timer.join()
        cut.close()


async def test_a_wait_goes_on_after_a_break(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "gate"
    with wire(site.url) as cut:
        async with client_of(site, cut.url) as client:
            handle = await gated.invoke(client, Gate(file=str(file)))
            waiting = asyncio.create_task(client.wait(handle.id))
            while cut.connections < 1:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            cut.cut()
            await asyncio.to_thread(file.touch)

            assert (await waiting)["result"] == "passed"


# -- streams


async def test_a_reader_that_is_cut_off_again_and_again_reads_each_event_once(site: Site) -> None:
    topic, chances = unique(), random.Random(1)
    limits = [chances.randrange(0, 3000) for _ in range(15)]
    with wire(site.url, limits, replaced=PROMPT) as cut:
        async with client_of(site, cut.url) as client, site.client("direct") as direct:
            numbers = await direct.publish_events(topic, [EventData(data={"n": n}) for n in range(60)])
            seen = []
            async for event in client.follow_topic(topic, after=0):
                seen.append(event.sequence_id)
                if event.data["n"] == 59:
                    break
        connections = cut.connections

    assert seen == numbers
    assert connections > 5


async def test_a_live_reader_that_is_cut_off_reads_each_event_once(site: Site) -> None:
    with wire(site.url, [None, 900, 1500, 700, 2000], replaced=PROMPT) as cut:
        async with client_of(site, cut.url) as client:
            handle = await steps.invoke(client, Number(n=20))
            seen = [event async for event in client.follow(handle.id)]

    finished = [event.data["step_key"] for event in seen if event.event_type == "step_finish"]
    assert finished == [f"step{number}" for number in range(20)]
    assert len({event.id for event in seen}) == len(seen)


# -- refusals


async def test_a_key_the_server_does_not_know_is_refused(site: Site) -> None:
    async with PolosClient(site.url, "sk_" + "x" * 32, settings=site.settings) as client:
        with pytest.raises(AccessDeniedError, match="POLOS_API_KEY"):
            await client.invoke("client-double", {"n": 1})
        with pytest.raises(AccessDeniedError):
            await anext(client.follow("any"))


async def test_a_project_the_key_is_not_for_is_refused(site: Site) -> None:
    async with PolosClient(site.url, site.keys["default"], "other", settings=site.settings) as client:
        with pytest.raises(PermissionError, match="POLOS_PROJECT_ID"):
            await client.get_execution("any")


async def test_a_server_that_is_not_there_is_named_with_what_to_do() -> None:
    server = ServerConnection(ServerAddress("http://127.0.0.1:1", "sk_1", False), project_id=None)

    with pytest.raises(ServerUnavailableError, match=r"127\.0\.0\.1:1 does not answer.*'polos server'"):
        await server.ask("GET", "/executions/any", patience_seconds=0.3)
    await server.leave_loop()


Answer = tuple[int, dict[str, str], bytes]
MISSING: Answer = (404, {}, b'{"error": "no such run", "error_type": "NOT_FOUND"}')


@contextmanager
def answering(*answers: Answer) -> Iterator[ServerConnection]:
    """Give the connection to a server that answers so, in turn; the last answer stays."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            yield ServerConnection(ServerAddress(url, "sk_1", False), project_id=None)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_server_that_cannot_answer_now_is_asked_again(status: int) -> None:
    busy: Answer = (status, {"Retry-After": "0.1"}, b"busy")
    with answering(busy, busy, MISSING) as server:
        began = time.monotonic()
        assert await server.ask("GET", "/executions/any") is None
        assert time.monotonic() - began >= 0.2
        await server.leave_loop()


async def test_a_pause_beyond_all_patience_is_not_made() -> None:
    with answering((429, {"Retry-After": "3600"}, b"{}")) as server:
        with pytest.raises(ServerUnavailableError, match="429"):
            await server.ask("GET", "/executions/any")
        await server.leave_loop()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((404, {}, b"<html>Not Found</html>"), "is not a polos server"),
        ((404, {}, b"[]"), "is not a polos server"),
        ((302, {"Location": "https://elsewhere"}, b""), "points to 'https://elsewhere'"),
    ],
)
async def test_something_else_than_a_server_of_polos_is_told_of(answer: Answer, problem: str) -> None:
    with answering(answer) as server:
        with pytest.raises(ConfigurationError, match=problem):
            await server.ask("GET", "/executions/any")
        await server.leave_loop()


async def test_a_server_that_fails_is_not_asked_again() -> None:
    with answering((500, {}, b'{"error": "its log says why"}'), MISSING) as server:
        with pytest.raises(ServerUnavailableError, match="its log says why"):
            await server.ask("GET", "/executions/any")
        await server.leave_loop()
