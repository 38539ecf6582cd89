"""An MCP server for tests: run as a program, it speaks over its standard streams, or HTTP on a port.

Everything that happens is a line of JSON in the file LEDGER; WAIT_FOR is a file that `wait` waits for.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(64)


def write(what: str, **more: Any) -> None:
    with Path(os.environ["LEDGER"]).open("a") as ledger:
        ledger.write(json.dumps({"what": what, "pid": os.getpid(), **more}) + "\n")


class Desk(MCPServer):
    async def list_tools(self) -> Any:
        write("list")
        return await super().list_tools()


desk = Desk("desk", log_level="CRITICAL")


def is_open(name: str) -> bool:
    return Path(os.environ["WAIT_FOR"], name).exists()


@desk.tool(description="Add two numbers")
def add(a: int, b: int) -> int:
    return a + b


@desk.tool(structured_output=False)
def note(text: str, ctx: Context) -> str:
    """Write a note"""
    write("note", text=text, meta=dict(ctx.request_context.meta or {}))
    return f"noted {text}"


@desk.tool(structured_output=False)
async def wait(name: str, ctx: Context) -> str:
    """Wait for a file"""
    write("wait", name=name, meta=dict(ctx.request_context.meta or {}))
    try:
        while not is_open(name):
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        write("cancelled", name=name)
        raise
    write("waited", name=name)
    return f"{name} came"


@desk.tool()
def refuse() -> str:
    raise ToolError("the drawer is locked")


@desk.tool()
def crash() -> str:
    write("crash")
    print("the desk is on fire", file=sys.stderr, flush=True)
    os._exit(3)


@desk.tool(structured_output=False)
def picture() -> list[Any]:
    return ["a dot", Image(data=PICTURE, format="png")]


@desk.tool(structured_output=False)
def long(characters: int) -> str:
    return "x" * characters


@desk.tool(structured_output=False)
def variable(name: str) -> str:
    return os.environ.get(name, "unset")


if more := os.environ.get("MORE"):
    desk.tool(name=more)(add)

if __name__ == "__main__":
    write("start")
    if len(sys.argv) > 1:
        both = desk.streamable_http_app()
        both.router.routes.extend(desk.sse_app().routes)
        uvicorn.run(both, port=int(sys.argv[1]), log_level="critical")
    else:
        desk.run("stdio")
    write("end")
