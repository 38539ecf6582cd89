"""An MCP server in a few lines, of the protocol before 2026, that starts at once; its tool is ``hello``."""

from __future__ import annotations

import json
import sys

TOOL = {"name": "hello", "inputSchema": {"type": "object"}}
ANSWERS = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "tiny", "version": "1"},
    },
    "tools/list": {"tools": [TOOL]},
    "tools/call": {"content": [{"type": "text", "text": "hello"}]},
}


def serve() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        found = ANSWERS.get(message["method"])
        answer = {"error": {"code": -32601, "message": "unknown"}} if found is None else {"result": found}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w") as file:
            file.write("the input has ended")


if __name__ == "__main__":
    serve()
