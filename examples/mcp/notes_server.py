"""A server of tools: any program that speaks MCP will do, in any language."""

from pathlib import Path

from mcp.server.mcpserver import MCPServer

NOTES = Path("notes.txt")
server = MCPServer("notes")


@server.tool()
def add(text: str) -> str:
    """Write a note."""
    with NOTES.open("a") as notes:
        notes.write(text + "\n")
    return "noted"


@server.tool()
def read() -> list[str]:
    """Read all notes."""
    return NOTES.read_text().splitlines() if NOTES.exists() else []


@server.tool()
def remove_all() -> str:
    """Remove all notes."""
    NOTES.unlink(missing_ok=True)
    return "removed"


if __name__ == "__main__":
    server.run()
