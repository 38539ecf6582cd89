"""Tools from MCP servers: declared, listed once per run, called like others. Only this room knows `mcp`."""
