"""Sessions with real servers: what works, and every way in which a server can fail."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from mcp_servers import tiny
from mcp_servers.desks import DESK, TINY, Ledger, http_desk

from polos.errors import ToolServerError
from polos.mcp.connections import Connections
from polos.mcp.environment import EnvironmentVariable
from polos.mcp.results import error_text_of, value_of
from polos.mcp.server import MCPServer
from polos.settings import Settings
from polos.tools.content import ImageBlock, TextBlock, ToolContent

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMIT = 1 << 20
META = {"polos/idempotencyKey": "run:mcp:call"}


class Desk:
    """A server and the sessions with it."""

    def __init__(self, server: MCPServer, ledger: Ledger, settings: Settings) -> None:
        self.server = server
        self.ledger = ledger
        self.connections = Connections(settings)

    async def call(self, name: str, /, **arguments: Any) -> Any:
        result = await self.connections.call(self.server, name, arguments, META)
        return f"failed: {error_text_of(result)}" if result.is_error else value_of(result, limit_bytes=LIMIT)

    async def names(self) -> list[str]:
        return [tool["name"] for tool in await self.connections.tools(self.server)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """The server as a program."""
    ledger = Ledger(tmp_path_factory.mktemp("stdio"))
    server = MCPServer("desk", command=DESK, env={**ledger.environment, "KEY": "sekret-value"})
    desk = Desk(server, ledger, Settings(mcp_connect_seconds=60))
    yield desk
    await desk.connections.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far_desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """The server over HTTP."""
    with http_desk(tmp_path_factory.mktemp("http")) as (url, ledger):
        desk = Desk(
            MCPServer("far", url=url, headers={"X-Key": "k"}), ledger, Settings(mcp_connect_seconds=60)
        )
        yield desk
        await desk.connections.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_structured_content_comes_first(desk: Desk) -> None:
    assert await desk.call("add", a=1, b=2) == {"result": 3}


async def test_a_text_is_a_text_and_the_request_carries_the_idempotency_key(desk: Desk) -> None:
    assert await desk.call("note", text="milk") == "noted milk"
    assert desk.ledger.lines("note")[-1]["meta"].items() >= META.items()


async def test_a_tool_that_failed_says_why(desk: Desk) -> None:
    assert await desk.call("refuse") == "failed: Error executing tool refuse: the drawer is locked"


async def test_a_tool_that_is_not_there_fails(desk: Desk) -> None:
    assert "nothing" in await desk.call("nothing")


async def test_images_are_kept_as_such(desk: Desk) -> None:
    content = await desk.call("picture")

    assert isinstance(content, ToolContent)
    text, image = content.blocks
    assert text == TextBlock(text="a dot")
    assert isinstance(image, ImageBlock)
    assert content.for_model()[1]["image_url"].startswith("data:image/png;base64,iVBOR")


async def test_what_is_too_large_is_cut_and_marked(desk: Desk) -> None:
    text = await desk.call("long", characters=LIMIT + 1)

    assert LIMIT // 4 < len(text) < LIMIT
    assert text.endswith(f"… (cut: {LIMIT + 1} bytes are more than POLOS_MAX_VALUE_BYTES)")


async def test_a_program_has_only_the_variables_it_was_given(desk: Desk) -> None:
    """Those of the worker, with its keys, are not the server's business."""
    assert await desk.call("variable", name="KEY") == "sekret-value"
    assert await desk.call("variable", name="PYTEST_CURRENT_TEST") == "unset"


async def test_calls_share_one_program_which_lists_its_tools_once(desk: Desk) -> None:
    calls = [desk.call("add", a=number, b=1) for number in range(20)]

    assert [result["result"] for result in await asyncio.gather(*calls)] == list(range(1, 21))
    assert {"add", "note", "crash"} <= set(await desk.names())
    assert len({line["pid"] for line in desk.ledger.lines()}) == len(desk.ledger.lines("start"))
    assert len(desk.ledger.lines("list")) == len(desk.ledger.lines("start"))


async def test_a_late_answer_fails_one_call_only_and_the_server_is_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = asyncio.create_task(desk.call("wait", name="other"))
    await until(lambda: desk.ledger.lines("wait"))
    monkeypatch.setattr(desk.server, "timeout_seconds", 1.0)

    with pytest.raises(
        ToolServerError, match=r"did not answer 'wait' within 1 s.*may or may not.*timeout_sec"
    ):
        await desk.call("wait", name="late")

    await until(lambda: [line["name"] for line in desk.ledger.lines("cancelled")] == ["late"])
    desk.ledger.open("other")
    assert await other == "other came"


async def test_a_call_that_is_cancelled_stops_at_the_server(desk: Desk) -> None:
    call = asyncio.create_task(desk.call("wait", name="never"))
    await until(lambda: any(line["name"] == "never" for line in desk.ledger.lines("wait")))
    call.cancel()

    await until(lambda: any(line["name"] == "never" for line in desk.ledger.lines("cancelled")))
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_program_that_dies_fails_its_calls_and_is_started_again_by_the_next(desk: Desk) -> None:
    with pytest.raises(
        ToolServerError, match=r"ended in the middle of 'crash' .*the desk is on fire.*may or may"
    ):
        await desk.call("crash")

    assert await desk.call("add", a=2, b=2) == {"result": 4}
    assert len(desk.ledger.lines("start")) == 2


async def test_a_program_ends_when_nobody_uses_it(tmp_path: Path) -> None:
    """By the end of its input, not by a signal; the next call starts it again."""
    connections = Connections(Settings(mcp_connect_seconds=60, mcp_idle_seconds=0.01))
    server = MCPServer("tiny", command=[*TINY, str(tmp_path / "ended")])

    for _ in range(2):
        result = await connections.call(server, "hello", {}, {})
        assert value_of(result, limit_bytes=LIMIT) == "hello"
        await until((tmp_path / "ended").exists)
        (tmp_path / "ended").unlink()
    await connections.close()


async def test_over_http_it_is_the_same(far_desk: Desk) -> None:
    assert await far_desk.call("add", a=1, b=2) == {"result": 3}
    assert await far_desk.call("refuse") == "failed: Error executing tool refuse: the drawer is locked"
    assert await far_desk.call("note", text="tea") == "noted tea"
    assert far_desk.ledger.lines("note")[-1]["meta"].items() >= META.items()
    assert len(far_desk.ledger.lines("list")) == 1


async def test_over_http_a_late_answer_fails(far_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_desk.server, "timeout_seconds", 1.0)
    with pytest.raises(ToolServerError, match=r"did not answer 'wait' within 1 s"):
        await far_desk.call("wait", name="late")

    monkeypatch.setattr(far_desk.server, "timeout_seconds", 30)
    assert await far_desk.call("add", a=3, b=3) == {"result": 6}


async def test_server_sent_events_are_the_older_way(far_desk: Desk) -> None:
    url = str(far_desk.server.endpoint().url).replace("/mcp", "/sse")
    connections = Connections(Settings(mcp_connect_seconds=60))
    server = MCPServer("older", url=url, transport="sse")
    result = await connections.call(server, "add", {"a": 1, "b": 1}, META)
    await connections.close()

    assert value_of(result, limit_bytes=LIMIT) == {"result": 2}


class OldServer(BaseHTTPRequestHandler):
    """Streamable HTTP of the protocol before 2026, with sessions; a restart forgets them."""

    session = "first"
    calls = 0

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method, session = message["method"], self.headers.get("mcp-session-id")
        if method not in tiny.ANSWERS or (method != "initialize" and session != OldServer.session):
            return self.answer(202 if method.startswith("notifications/") else 404)
        OldServer.calls += method == "tools/call"
        result = {"jsonrpc": "2.0", "id": message["id"], "result": tiny.ANSWERS[method]}
        return self.answer(200, json.dumps(result).encode())

    def do_GET(self) -> None:
        self.answer(405)

    def do_DELETE(self) -> None:
        self.answer(405)

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("mcp-session-id", OldServer.session)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


async def test_a_server_that_was_restarted_gets_a_new_session() -> None:
    """What it refused for the old one had no effect, so the call is made again."""
    connections = Connections(Settings(mcp_connect_seconds=60))
    with serving(OldServer) as url:
        server = MCPServer("old", url=url)
        await connections.call(server, "hello", {}, {})
        OldServer.session = "second"
        result = await connections.call(server, "hello", {}, {})
        await connections.close()

    assert value_of(result, limit_bytes=LIMIT) == "hello"
    assert OldServer.calls == 2


# -- servers that are none


def program(code: str, **options: Any) -> MCPServer:
    return MCPServer("broken", command=[sys.executable, "-c", code], **options)


BROKEN = {
    "there is no such program": (
        lambda: MCPServer("broken", command=["/no/such/program"]),
        r"cannot be started: .*'/no/such/program'.*Install",
    ),
    "it ends at once": (
        lambda: program("import sys; sys.exit('no licence')"),
        r"ended before it had answered \(its standard error ends with: no licence\)",
    ),
    "it never answers": (
        lambda: program("import time; time.sleep(60)"),
        r"did not answer within 0.5 s of being started.*POLOS_MCP_CONNECT_SECONDS",
    ),
    "it writes no messages": (
        lambda: program("while True: print('hello there', flush=True)"),
        r"does not speak MCP \(it prints what is no message on its standard output: 'hello there'\)",
    ),
    "a variable is missing": (
        lambda: program("", env={"TOKEN": EnvironmentVariable("NO_SUCH_VARIABLE")}),
        r"needs the environment variable NO_SUCH_VARIABLE, which is not set on this worker",
    ),
    "nobody listens": (
        lambda: MCPServer("broken", url="http://127.0.0.1:9/mcp"),
        r"cannot be reached: .*Start it, or correct url=",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_server_that_cannot_be_used_says_what_to_do(name: str) -> None:
    make, message = BROKEN[name]
    seconds = 0.5 if name == "it never answers" else 60
    connections = Connections(Settings(mcp_connect_seconds=seconds))

    with pytest.raises(ToolServerError, match=re.compile(message, re.DOTALL)):
        await connections.call(make(), "anything", {}, {})
    await connections.close()


@contextmanager
def refusing(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as url:
        yield f"{url}?token=sekret-value"


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/mcp"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "message", "retryable"),
    [
        (401, "refuses with HTTP 401. Check the key in headers=", False),
        (404, "answers with HTTP 404. Check url= and the server", False),
        (503, "answers with HTTP 503. Check url= and the server", True),
    ],
)
async def test_an_http_server_that_refuses(status: int, message: str, retryable: bool) -> None:
    connections = Connections(Settings(mcp_connect_seconds=10))
    with refusing(status) as url, pytest.raises(ToolServerError) as caught:
        await connections.call(MCPServer("broken", url=url), "anything", {}, {})
    await connections.close()

    assert str(caught.value) == f"MCP server 'broken' {message}"
    assert caught.value.retryable is retryable


async def test_what_could_not_be_started_is_not_tried_again_at_once() -> None:
    """Whoever comes too soon is refused, and holds no slot."""
    connections = Connections(Settings(mcp_connect_seconds=30))
    server = program("import sys; sys.exit('no licence')")

    for message in ("no licence", r"no licence.*\(tried again in 1 s\)"):
        with pytest.raises(ToolServerError, match=message):
            await connections.tools(server)
    await connections.close()


async def test_secrets_are_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_TOKEN", "sekret-value")
    connections = Connections(Settings(mcp_connect_seconds=30))
    server = program(
        "import os, sys; sys.exit('bad token ' + os.environ['T'])", env={"T": "Bearer ${DESK_TOKEN}"}
    )

    with pytest.raises(ToolServerError, match=r"bad token \*\*\*") as caught:
        await connections.tools(server)
    await connections.close()
    assert "sekret" not in f"{caught.value} {server!r} {server.endpoint()!r}"
