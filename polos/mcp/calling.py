"""The body of a tool of an MCP server: one request, on the session this worker shares."""

from __future__ import annotations

from typing import Any

from polos.engine.context import WorkflowContext
from polos.errors import ToolServerError
from polos.mcp.endpoint import Server
from polos.mcp.loading import connections_of

IDEMPOTENCY_META = "polos/idempotencyKey"  # in a request's `_meta`: the same whenever the call is repeated
CALL = "mcp:call"


async def call_tool(server: Server, name: str, ctx: WorkflowContext, arguments: dict[str, Any]) -> Any:
    """Return what the tool returned, as JSON data or `ToolContent`.

    Raises:
        ToolServerError: It failed, or the server did.
        StepExecutionError: The server allows no second call, and the worker of the first died.
    """
    if server.at_most_once:
        return await ctx.step.run(CALL, _call, server, name, ctx, arguments, at_most_once=True)
    return await _call(server, name, ctx, arguments)


async def _call(server: Server, name: str, ctx: WorkflowContext, arguments: dict[str, Any]) -> Any:
    runtime, _ = ctx.step.engine
    connections = await connections_of(runtime)
    from polos.mcp import results  # noqa: PLC0415 - imports `mcp`, which is loaded now

    meta = {IDEMPOTENCY_META: ctx.step.idempotency_key(CALL)}
    result = await connections.call(server, name, arguments, meta)
    limit = runtime.settings.max_value_bytes
    if result.is_error:
        text = connections.hidden(server, results.error_text_of(result))
        raise ToolServerError(results.cut(text, limit))
    return results.value_of(result, limit_bytes=limit)
