"""A conversation that one agent hands to another, in the middle of whose MCP tools the worker is killed."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from mcp_servers.desks import TINY, Ledger
from models.servers import ModelServer
from scripts import Folder, Script, is_running, wait_until

pytestmark = pytest.mark.timeout(240)

SECRET = "sekret-value-of-the-desk"
PROGRAM = f"""
from polos import EnvironmentVariable, MCPServer

ENVIRONMENT = {{
    "LEDGER": "${{DESK_LEDGER}}",
    "WAIT_FOR": "${{DESK_GATES}}",
    "MORE": "${{DESK_MORE}}",
    "KEY": EnvironmentVariable("DESK_KEY"),
}}
desk = MCPServer("desk", command={TINY!r}, env=ENVIRONMENT, timeout_seconds=120)
safe = MCPServer("safe", command={TINY!r}, env=ENVIRONMENT, timeout_seconds=120, at_most_once=True)

clerk = Agent(id="clerk", provider="openai", model="gpt-4o-mini", tools=[desk, safe])
front = Agent(id="front", provider="openai", model="gpt-4o", handoffs=[clerk])


async def main():
    async with PolosClient() as client:
        handle = await front.invoke(client, {{"input": "Fetch the file, please."}})
        say("accepted", handle.id)
        record = await client.wait(handle.id, timeout_seconds=200)
        say("ended", record["status"], record["result"]["result"])


if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def worker_of(folder: Folder, ledger: Ledger, *, more: str = "") -> Script:
    return folder.start_worker(
        "prog",
        DESK_LEDGER=str(ledger.file),
        DESK_GATES=str(ledger.gates),
        DESK_KEY=SECRET,
        DESK_MORE=more,
        POLOS_MCP_CONNECT_SECONDS="60",
    )


def names_of_tools(request: Any) -> list[str]:
    return sorted(each["name"] for each in request.body["tools"])


def steps_of(folder: Folder, run_id: str) -> dict[str, tuple[str, str | None]]:
    with sqlite3.connect(folder.home / "polos.db") as journal:
        rows = journal.execute("SELECT name, status, error FROM step WHERE run_id = ?", (run_id,)).fetchall()
    return {name: (status, error) for name, status, error in rows}


def test_a_handoff_with_mcp_tools_survives_the_death_of_its_worker(
    folder: Folder, model: ModelServer, ledger: Ledger
) -> None:
    """What was interrupted is called again under its key, or not at all where that is forbidden."""
    model.calls(("transfer_to_clerk", {}))
    model.calls(("desk_wait", {"name": "file"}), ("safe_wait", {"name": "other"}))
    model.says("It is there.")
    folder.write("prog.py", PROGRAM)
    first = worker_of(folder, ledger)
    asking = folder.start("prog.py", POLOS_EMBEDDED_WORKER="0")
    ledger.has("wait", 2)
    servers = {line["pid"] for line in ledger.lines("start")}

    first.kill()

    wait_until(lambda: not any(is_running(pid) for pid in servers), seconds=30)
    second = worker_of(folder, ledger, more="drawer")
    ledger.has("wait", 3, seconds=90)
    ledger.open("file")
    said = asking.ends(seconds=90)
    run_id = said.split("accepted ")[1].split()[0]

    # The answer, and how it came about.
    assert "ended completed It is there." in said
    waits = ledger.lines("wait")
    keys = [line["meta"]["polos/idempotencyKey"] for line in waits]
    assert sorted(line["name"] for line in waits) == ["file", "file", "other"]
    assert len({key for key, line in zip(keys, waits, strict=True) if line["name"] == "file"}) == 1
    assert [line["name"] for line in ledger.lines("waited")] == ["file"]
    # What the models were told: the same tools before and after the death, whatever the server offers now.
    handed_over, called, answered = model.requests
    assert names_of_tools(handed_over) == ["transfer_to_clerk"]
    assert names_of_tools(called) == names_of_tools(answered)
    assert "desk_drawer" not in names_of_tools(answered)
    outputs = [item for item in answered.body["input"] if item.get("type") == "function_call_output"]
    assert json.loads(outputs[1]["output"]) == "file came"
    assert "may or may not have happened" in outputs[2]["output"]
    # What the journal holds: each list once, and no secret anywhere.
    steps = steps_of(folder, run_id)
    assert steps["$mcp:list:desk:clerk"] == steps["$mcp:list:safe:clerk"] == ("completed", None)
    told = "\n".join([first.text, second.text, said])
    kept = b"".join(file.read_bytes() for file in folder.home.iterdir() if file.is_file())
    assert SECRET not in told
    assert SECRET.encode() not in kept

    # A worker that ends takes its servers along.
    servers = {line["pid"] for line in ledger.lines("start")}
    second.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not any(is_running(pid) for pid in servers), seconds=30)
