"""One live session with an MCP server, held open by a task of its own. Only here is `mcp` imported.

The session is entered and left by the same task, as its task groups want; requests may come from any task.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Any

import anyio
import httpx2
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import Implementation, ToolListChangedNotification
from pydantic import ValidationError

from polos.engine.tasks import start_apart
from polos.mcp.endpoint import Endpoint
from polos.mcp.failures import Doing, GarbageError, SessionLostError, failure
from polos.mcp.stderr import StderrTail
from polos.mcp.watching import Watched

MOST_PAGES = 100  # of a list of tools: one that never ends must not hold a run
MOST_GARBAGE = 20  # lines that are no messages; then the session is given up
HTTP_SECONDS = 30.0  # to connect and to send; how long an answer may take is the caller's business
CLOSE_SECONDS = 5.0

RemoteTool = dict[str, Any]  # as the server lists it


class Connection:
    """A session with one server. `open` first; once `is_open` is False it cannot be used again."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        connect_seconds: float,
        on_tools_changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.endpoint = endpoint
        self.tools: list[RemoteTool] = []
        self.garbage = ""  # the last thing that was no message
        self.http_status: int | None = None  # of the last refusal
        self._connect_seconds = connect_seconds
        self._on_tools_changed = on_tools_changed
        self._garbage_count = 0
        self._stderr: StderrTail | None = None
        self._client: Client | None = None
        self._scope: anyio.CancelScope | None = None
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests can be made."""
        return self._client is not None and not self._stop.is_set() and not self._has_ended

    @property
    def _has_ended(self) -> bool:
        return self._keeper is None or self._keeper.done()

    @property
    def stderr(self) -> str:
        """The last lines a program wrote for people."""
        return "" if self._stderr is None else self._stderr.text

    async def open(self) -> None:
        """Connect, and list the tools.

        Raises:
            ToolServerError: It cannot be started or reached, refuses, or takes too long.
        """
        self._keeper = start_apart(self._keep(), name=f"mcp {self.endpoint.name}")
        ready = start_apart(_until(self._ready))
        try:
            await asyncio.wait({self._keeper, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._keeper.done():
            raise failure(self, Doing.CONNECT, await self._reason(), seconds=self._connect_seconds)

    async def call(
        self, name: str, arguments: dict[str, Any], meta: dict[str, Any], *, timeout_seconds: float
    ) -> Any:
        """Return the server's `CallToolResult`.

        Cancelling it tells the server, which may stop.

        Raises:
            ToolServerError: It refuses, ends or does not answer in time.
        """
        return await self._request(
            lambda client: client.call_tool(name, arguments, meta=meta),  # type: ignore[arg-type]
            Doing.CALL,
            what=name,
            seconds=timeout_seconds,
        )

    async def list_again(self, *, timeout_seconds: float) -> list[RemoteTool]:
        """Ask for the tools once more.

        Raises:
            ToolServerError: As `call`.
        """
        self.tools = await self._request(_all_tools, Doing.LIST, what="its tools", seconds=timeout_seconds)
        return self.tools

    async def close(self) -> None:
        """End the session, and a program with it; takes a few seconds at most."""
        self._stop.set()
        if self._keeper is not None:
            await asyncio.wait({self._keeper}, timeout=CLOSE_SECONDS)

    # -- requests

    async def _request(self, ask: Callable[[Client], Any], doing: Doing, *, what: str, seconds: float) -> Any:
        # A task apart: what the transport starts for a request must not count among the tasks of a run.
        asking = start_apart(self._asked(ask, seconds))
        try:
            return await asking
        except asyncio.CancelledError:
            asking.cancel()
            raise
        except Exception as error:
            reason = await self._reason() if self._is_closing(error) else error
            problem = failure(self, doing, reason or error, what=what, seconds=seconds)
            if isinstance(problem, SessionLostError):
                self._stop.set()
            raise problem from error

    async def _asked(self, ask: Callable[[Client], Any], seconds: float) -> Any:
        assert self._client is not None, "opened before"
        with anyio.fail_after(seconds):  # the write, too: a server may not read
            return await ask(self._client)

    def _is_closing(self, error: Exception) -> bool:
        return self._stop.is_set() or self._has_ended or "Connection closed" in str(error)

    async def _reason(self) -> BaseException | None:
        """Return what ended the session, once it has ended."""
        await self.close()
        keeper = self._keeper
        if keeper is None or not keeper.done() or keeper.cancelled():
            return None
        return keeper.exception()

    # -- the task that holds it

    async def _keep(self) -> None:
        with anyio.CancelScope(deadline=anyio.current_time() + self._connect_seconds) as scope:
            self._scope = scope
            async with AsyncExitStack() as stack:
                transport = await self._transport(stack)
                client = Client(
                    Watched(transport, self._stop.set),
                    cache=None,
                    message_handler=self._noticed,
                    client_info=Implementation(name="polos", version=version("polos")),
                )
                await stack.enter_async_context(client)
                self.tools = await _all_tools(client)
                self._client = client
                scope.deadline = math.inf
                self._ready.set()
                await self._stop.wait()
        if scope.cancelled_caught:
            raise GarbageError if self._stop.is_set() else TimeoutError

    async def _transport(self, stack: AsyncExitStack) -> Any:
        endpoint = self.endpoint
        if endpoint.transport == "stdio":
            self._stderr = await stack.enter_async_context(StderrTail(endpoint))
            program, *arguments = endpoint.command
            parameters = StdioServerParameters(
                command=program, args=arguments, env=endpoint.env, cwd=endpoint.cwd
            )
            return stdio_client(parameters, errlog=self._stderr.file)
        if endpoint.transport == "sse":
            return sse_client(
                endpoint.url, timeout=HTTP_SECONDS, sse_read_timeout=math.inf, httpx_client_factory=self._http
            )
        http = await stack.enter_async_context(self._http())
        return streamable_http_client(endpoint.url, http_client=http)

    def _http(self, *_: Any, **__: Any) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers=self.endpoint.headers,
            timeout=httpx2.Timeout(HTTP_SECONDS, read=None),
            event_hooks={"response": [self._note_status]},
        )

    async def _note_status(self, response: httpx2.Response) -> None:
        if response.is_error:
            self.http_status = response.status_code

    async def _noticed(self, message: object) -> None:
        """Take note of what the server says unasked, and of what is no message at all."""
        if isinstance(message, ToolListChangedNotification):
            self._on_tools_changed()
        if isinstance(message, ValidationError):
            self._garbage_count += 1
            self.garbage = str(message.errors(include_url=False)[0].get("input", ""))[:200]
            if self._garbage_count >= MOST_GARBAGE:
                self._give_up()

    def _give_up(self) -> None:
        self._stop.set()
        if self._scope is not None:
            self._scope.cancel()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def _all_tools(client: Client) -> list[RemoteTool]:
    tools: list[RemoteTool] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in page.tools]
        if not (cursor := page.next_cursor):
            return tools
    raise ValueError(f"its list of tools has more than {MOST_PAGES} pages")
