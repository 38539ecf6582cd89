"""An MCP server without dependencies, of the protocol before 2026, that starts at once.

``hello`` answers; ``wait`` does when a file is there, see `desk`. A file named as argument tells that the
input has ended. MORE in the environment is the name of another tool.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

NAMES = ["hello", "wait", *filter(None, [os.environ.get("MORE")])]
ANSWERS: dict[str, Any] = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "tiny", "version": "1"},
    },
    "tools/list": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in NAMES]},
    "tools/call": {"content": [{"type": "text", "text": "hello"}]},
}
printing = threading.Lock()


def write(what: str, **more: Any) -> None:
    if ledger := os.environ.get("LEDGER"):
        with Path(ledger).open("a") as lines:
            lines.write(json.dumps({"what": what, "pid": os.getpid(), **more}) + "\n")


def wait(params: dict[str, Any]) -> dict[str, Any]:
    name = params["arguments"]["name"]
    write("wait", name=name, meta=params["_meta"])
    while not Path(os.environ["WAIT_FOR"], name).exists():
        time.sleep(0.01)
    write("waited", name=name)
    return {"content": [{"type": "text", "text": f"{name} came"}]}


def answer(message: dict[str, Any]) -> None:
    method, params = message["method"], message.get("params", {})
    found = wait(params) if params.get("name") == "wait" else ANSWERS.get(method)
    result = {"error": {"code": -32601, "message": "unknown"}} if found is None else {"result": found}
    with printing:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **result}), flush=True)


def serve() -> None:
    write("start")
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            threading.Thread(target=answer, args=(message,), daemon=True).start()
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text("the input has ended")


if __name__ == "__main__":
    serve()
