"""A tool of an MCP server: a call of it is a run like that of any other tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polos.registry import get_workflow
from polos.tools.tool import Tool

if TYPE_CHECKING:
    from polos.mcp.server import MCPServer


class MCPTool(Tool):
    """The tool that `server` knows as `remote_name`, under the id ``{server}.{remote_name}``."""

    def __init__(self, server: MCPServer, remote_name: str, **options: Any) -> None:
        self.server = server
        self.remote_name = remote_name
        super().__init__(f"{server.name}.{remote_name}", is_registered=False, **options)

    def _is_found_by_id(self) -> bool:
        found = get_workflow(self.id)  # made anew each time
        if not isinstance(found, MCPTool) or found.server is not self.server:
            return False
        return (found.approval, found.approval_timeout) == (self.approval, self.approval_timeout)

    def get_tool_type(self) -> str:
        """Return what kind of tool this is, for listings."""
        return "mcp"

    async def _default_execute(self, ctx: Any, payload: dict[str, Any] | None = None) -> Any:
        # A program that only starts agents pays for no engine.
        from polos.mcp.calling import call_tool  # noqa: PLC0415

        return await call_tool(self.server, self.remote_name, ctx, payload or {})
