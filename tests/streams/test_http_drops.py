"""F26 over HTTP: readers drop anywhere, also before the first event, and the server is killed meanwhile."""

from __future__ import annotations

import json
import random
import socket
import sys
from pathlib import Path

import httpx
import pytest
from reports import REPORTS
from scripts import Script
from studio import Studio
from talker import words

DROPS = 300
RESTARTS = 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server(studio: Studio, port: int) -> Script:
    polos = str(Path(sys.executable).with_name("polos"))
    running = studio.folder.command(polos, "server", "--port", str(port), POLOS_LOCAL_MODE="true")
    running.wait_for("running on", seconds=60)
    return running


class Reader:
    """A reader of server-sent events that remembers the last id, as browsers do."""

    def __init__(self, http: httpx.AsyncClient, run_id: str) -> None:
        self._http = http
        self._query = {"workflow_id": "stream-speaker", "workflow_run_id": run_id}
        self.last_id: str | None = None
        self.text = ""
        self.ended = False

    async def read(self, events: int) -> None:
        """Connect, read so many events, and drop."""
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        url = "/api/v1/events/stream"
        async with self._http.stream("GET", url, params=self._query, headers=headers) as response:
            response.raise_for_status()
            frame: dict[str, str] = {}
            async for line in response.aiter_lines():
                if events <= 0:
                    return
                if line:
                    name, _, value = line.partition(":")
                    frame[name] = value.strip()
                elif "data" in frame:
                    self._take(frame)
                    frame, events = {}, events - 1
                if self.ended:
                    return

    def _take(self, frame: dict[str, str]) -> None:
        self.last_id = frame["id"]
        event = json.loads(frame["data"])
        assert event["id"] == frame["id"]
        if event["event_type"] == "text_delta":
            self.text += event["data"]["content"]
        self.ended = event["event_type"] == "agent_finish"


@pytest.mark.timeout(240)
async def test_drops_and_restarts_lose_and_repeat_nothing(
    studio: Studio, request: pytest.FixtureRequest
) -> None:
    chance, port = random.Random(26), free_port()
    running = server(studio, port)
    drops = restarts = runs = 0
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        while drops < DROPS:
            stream = await studio.speaks(120, pace=0.002)
            reader = Reader(http, stream.id)
            runs += 1
            while not reader.ended:
                await reader.read(chance.randint(0, 5))
                drops += not reader.ended
                if restarts < RESTARTS and drops > (restarts + 1) * DROPS / (RESTARTS + 1):
                    running.kill()
                    running = server(studio, port)
                    restarts += 1
            assert reader.text == "".join(words(120))
    line = f"{drops} drops, {restarts} kills of the server, {runs} runs: no word lost, none twice"
    request.config.stash[REPORTS]["F26 over HTTP"] = [line]
