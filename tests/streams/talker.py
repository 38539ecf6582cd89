"""A model that speaks word by word over HTTP, waits where it is told to, breaks off where it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def words(count: int, mark: str = "") -> list[str]:
    """Return what the model says: no two words are the same."""
    return [f"w{mark}{number} " for number in range(count)]


@dataclass
class Talker:
    """What is asked for is in the user's message, as JSON; see `_Speech`."""

    url: str = ""
    attempts: Counter[str] = field(default_factory=Counter)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    reached: dict[str, threading.Event] = field(default_factory=dict)
    running: int = 0  # answers under way

    def gate(self, name: str) -> None:
        """Make answers that name this gate wait at it."""
        self.gates[name] = threading.Event()
        self.reached[name] = threading.Event()

    def open(self, name: str) -> None:
        """Let them go on."""
        self.gates[name].set()


@contextmanager
def talker() -> Iterator[Talker]:
    """Run the model on a free port."""
    talk = Talker()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(talk))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # readers that hang up are wanted
    talk.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield talk
    finally:
        for gate in talk.gates.values():
            gate.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def _handler(talk: Talker) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            key = self.headers.get("idempotency-key", "")
            talk.attempts[key] += 1
            asked = json.loads(next(m["content"] for m in body["messages"] if m["role"] == "user"))
            results = sum(message["role"] == "tool" for message in body["messages"])
            talk.running += 1
            try:
                if body.get("tools") and asked.get("tool") and not results:
                    self._call_tool(asked["tool"])
                else:
                    self._speak(asked, talk.attempts[key])
            finally:
                talk.running -= 1

        def _speak(self, asked: dict[str, Any], attempt: int) -> None:
            if attempt <= asked.get("refuse", 0):
                self._refuse()
                return
            mark = asked.get("mark", "") + ("'" * (attempt - 1) if asked.get("varies") else "")
            self._begin()
            for number, word in enumerate(words(asked["words"], mark)):
                if attempt == 1 and number == asked.get("cut"):
                    self.close_connection = True
                    self.connection.close()
                    return
                if number == asked.get("at", 0) and (gate := talk.gates.get(asked.get("gate", ""))):
                    talk.reached[asked["gate"]].set()
                    gate.wait(60)
                self._chunk({"content": word})
                time.sleep(asked.get("pace", 0.0))
            self._end("stop")

        def _call_tool(self, name: str) -> None:
            self._begin()
            call = {"index": 0, "id": f"call_{time.time_ns()}", "type": "function"}
            self._chunk({"tool_calls": [{**call, "function": {"name": name, "arguments": '{"n": 1}'}}]})
            self._end("tool_calls")

        def _refuse(self) -> None:
            body = b'{"error": {"message": "overloaded"}}'
            self.send_response(503)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _begin(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self._chunk({"role": "assistant", "content": ""})

        def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            base = {"id": "chat", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            self._data(json.dumps({**base, "choices": [choice]}))

        def _end(self, reason: str) -> None:
            self._chunk({}, finish=reason)
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            base = {"id": "chat", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            self._data(json.dumps({**base, "choices": [], "usage": usage}))
            self._data("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

        def _data(self, text: str) -> None:
            line = f"data: {text}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    return Handler
