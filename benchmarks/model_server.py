"""A model behind real HTTP that costs next to nothing: OpenAI chat completions, on raw asyncio.

The system prompt is the script: `script-3-5-200` asks three times for five tools and then answers, each time
after 200 ms; `stream-60-50` says 60 words, one each 50 ms, each of them the time at which it was sent. Where
a conversation stands is read from its messages; only times of requests are kept.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvloop

HEAD_END = b"\r\n\r\n"
SEEN_PATH = b"/seen"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def answer_to(body: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Return the answer and after how many seconds it comes."""
    turns, tools, milliseconds = (int(part) for part in body["messages"][0]["content"].split("-")[1:])
    turn = sum(message["role"] == "assistant" for message in body["messages"])
    calls = [_call(turn, number) for number in range(tools)] if turn < turns else None
    message = {"role": "assistant", "content": None if calls else "done", "tool_calls": calls}
    return {
        "id": f"chatcmpl-{turn}",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }, milliseconds / 1000


def _call(turn: int, number: int) -> dict[str, Any]:
    function = {"name": "look_up", "arguments": '{"word": "tide"}'}
    return {"id": f"call_{turn}_{number}", "type": "function", "function": function}


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class _Connection(asyncio.Protocol):
    def __init__(self, times: list[float]) -> None:
        self._times = times
        self._data = b""
        self._transport: Any = None
        self._speaking: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(HEAD_END)) >= 0:
            head = self._data[:end].lower()
            start = end + len(HEAD_END)
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            if len(self._data) < start + length:
                return
            body, self._data = self._data[start : start + length], self._data[start + length :]
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        if SEEN_PATH in head.partition(b"\r\n")[0]:
            self._send(list(self._times))
            self._times.clear()
            return
        self._times.append(time.monotonic())
        asked = json.loads(body)
        if asked["messages"][0]["content"].startswith("stream-"):
            self._speaking = asyncio.get_running_loop().create_task(self._speak(asked))
            return
        answer, delay_seconds = answer_to(asked)
        if delay_seconds:
            asyncio.get_running_loop().call_later(delay_seconds, self._send, answer)
        else:
            self._send(answer)

    async def _speak(self, asked: dict[str, Any]) -> None:
        words, milliseconds = (int(part) for part in asked["messages"][0]["content"].split("-")[1:])
        self._transport.write(STREAM_HEAD)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(words):
            await asyncio.sleep(max(began + number * milliseconds / 1000 - loop.time(), 0))
            self._data_line({"content": f"{time.monotonic():.6f} "})
        self._data_line({}, finish="stop")
        self._transport.write(_chunk(b"data: [DONE]\n\n") + _chunk(b""))

    def _data_line(self, delta: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        base = {"id": "s", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        self._transport.write(_chunk(f"data: {json.dumps({**base, 'choices': [choice]})}\n\n".encode()))

    def _send(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def _serve() -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(times), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def model_server() -> Iterator[str]:
    """Run a model server in a process of its own while the context lasts; its base URL."""
    command = [sys.executable, "-m", "benchmarks.model_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def request_times(base_url: str) -> list[float]:
    """Return when requests came since the last question, by time.monotonic()."""
    times: list[float] = httpx.get(f"{base_url}{SEEN_PATH.decode()}").json()
    return times


if __name__ == "__main__":
    uvloop.run(_serve())
