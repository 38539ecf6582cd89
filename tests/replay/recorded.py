"""What the recorded programs share. Imported beside polos of whatever version: it knows nothing of it."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

MODULES = ("recorded_plain", "recorded_agents", "recorded_events", "recorded_waits", "recorded_sessions")
MODEL_URL = os.environ.get("REPLAY_MODEL_URL", "http://127.0.0.1:1/v1")
HANGS_SECONDS = 3600.0
attempts: Counter[str] = Counter()
effects: list[Any] = []  # what steps did in this process


@dataclass(frozen=True)
class Start:
    """A run to record.

    Attributes:
        name: Of its definition.
        payload: Its input.
        becomes: Its status in the recorded journal.
        ends: How a half-way run ends when it goes on; empty for a run that has ended.
        output: What it comes to, for runs that go on; None is not looked at.
        action: What is done to it when it stands as `becomes`: "cancel", "retry" or "fork".
        since: The first schema revision that can do this.
        session: Id of its session.
        late: It is started when no worker is left.
    """

    name: str
    payload: Any = None
    becomes: str = "completed"
    ends: str = ""
    output: Any = None
    action: str = ""
    since: str = "0001"
    session: str | None = None
    late: bool = False


def is_recording() -> bool:
    """Whether half-way runs are to get stuck where they are recorded."""
    return os.environ.get("REPLAY_RECORDING") == "1"


async def stuck_while_recording(value: Any) -> Any:
    """Return `value`; while recording, never."""
    effects.append(value)
    if is_recording():
        await asyncio.sleep(HANGS_SECONDS)
    return value


# -- the model: what it says is written in the last message of a user, as JSON


def asks(says: str, *calls: tuple[str, dict[str, Any]], hangs: bool = False) -> str:
    """Return a message that makes the model call these tools, then say something."""
    return json.dumps({"says": says, "calls": calls, "hangs": hangs})


def answer_to(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the model does about a conversation: ``{"says", "calls", "hangs"}``."""
    last = max(place for place, item in enumerate(items) if _script_of(item) is not None)
    script = _script_of(items[last])
    assert script is not None
    done = [item for item in items[last:] if "tool" in (item.get("role"), item.get("type", "")[-6:-1])]
    done += [item for item in items[last:] if item.get("type") == "function_call_output"]
    refused = any("was not accepted" in json.dumps(item) for item in items[last:])
    return {
        "says": f"Checked: {script['says']}" if refused else script["says"],
        "calls": [] if done or refused else script["calls"],
        "hangs": script["hangs"],
    }


def _script_of(item: dict[str, Any]) -> dict[str, Any] | None:
    if item.get("role") != "user":
        return None
    content = item["content"]
    text = content if isinstance(content, str) else "".join(block.get("text", "") for block in content)
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "says" in found else None
