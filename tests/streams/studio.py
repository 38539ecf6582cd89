"""A place with workers whose model speaks slowly, and a client of it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from scripts import Folder, Script
from stream_program import speaker
from talker import Talker

from polos import PolosClient, StreamEvent, StreamResult

QUICK = {
    "POLOS_SWEEP_SECONDS": "0.2",
    "POLOS_MODEL_RETRY_BASE_SECONDS": "0.01",
    "POLOS_EMBEDDED_WORKER": "0",
    "POLOS_IMPORTS": "stream_program",
    "OPENAI_API_KEY": "sk-test",
}


@dataclass
class Studio:
    """A place with a worker, and a client of it."""

    folder: Folder
    talker: Talker
    client: PolosClient
    redis_url: str

    def worker(self, *options: str, **variables: str) -> Script:
        """Start a Celery worker, and return once it serves."""
        celery = str(Path(sys.executable).with_name("celery"))
        command = [
            celery,
            "-A",
            "polos",
            "worker",
            "-l",
            "INFO",
            "-n",
            f"{os.urandom(3).hex()}@here",
            *options,
        ]
        worker = self.folder.command(*command, **variables)
        worker.wait_for(" ready.", seconds=60)
        return worker

    async def speaks(self, words: int, **asked: Any) -> StreamResult:
        """Start the speaker."""
        return await speaker.stream(self.client, json.dumps({"words": words, **asked}))

    def redis(self) -> Any:
        return redis.Redis.from_url(self.redis_url, decode_responses=True)


def text_of(read: list[StreamEvent]) -> str:
    return "".join(event.data["content"] for event in read if event.event_type == "text_delta")


async def read(stream: StreamResult) -> list[StreamEvent]:
    return [event async for event in stream.events]
