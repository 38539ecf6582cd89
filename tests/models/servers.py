"""Model servers for tests: llmock, which plays the providers, and a recorder that answers as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from llmock.scenarios import Delay, Fail, Reply, StreamFault, ToolCall
from llmock.testing import LLMockServer
from llmock.verdict import judge

TEST_KEY = "sk-test-0123456789"
KEY_VARIABLES = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "groq": "GROQ_API_KEY",
    "fireworks": "FIREWORKS_API_KEY",
    "together": "TOGETHER_API_KEY",
    "azure": "AZURE_OPENAI_API_KEY",
}
BASE_URL_VARIABLES = {
    "openai": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "gemini": "GEMINI_BASE_URL",
    "groq": "GROQ_BASE_URL",
    "together": "TOGETHER_BASE_URL",
}


class ModelServer:
    """A running llmock: what the model says next, and which requests came."""

    def __init__(self, server: LLMockServer) -> None:
        self._server = server

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point every provider llmock plays at this server."""
        urls = {variable: self._server.base_url(name) for name, variable in BASE_URL_VARIABLES.items()}
        return {**urls, **dict.fromkeys(KEY_VARIABLES.values(), TEST_KEY)}

    def says(self, text: str, *, times: int | None = 1) -> None:
        self._server.state.scenarios.add(Reply(text=text, times=times))

    def calls(self, *calls: tuple[str, dict[str, Any]], text: str | None = None) -> None:
        """The next answer calls these tools, in parallel."""
        tool_calls = tuple(ToolCall(name, arguments) for name, arguments in calls)
        self._server.state.scenarios.add(Reply(text=text, tool_calls=tool_calls))

    def fails(self, status: int, *, times: int | None = 1, **options: Any) -> None:
        self._server.state.scenarios.add(Fail(status, times=times, **options))

    def script(self, *behaviors: Any) -> None:
        """Add behaviours of `llmock.scenarios` as they are."""
        self._server.state.scenarios.add(*behaviors)

    def hangs(self, seconds: float) -> None:
        self._server.state.scenarios.add(Delay(seconds))

    def breaks(self, kind: Any, *, after_chunks: int = 2, seconds: float = 30.0) -> None:
        """The next stream meets a `disconnect`, `truncate`, `malformed` or `stall` after some chunks."""
        fault = StreamFault(kind, after_chunks=after_chunks, stall_seconds=seconds)
        self._server.state.scenarios.add(fault)

    def assert_resilient(self) -> None:
        """Fail unless llmock finds nothing wrong with how its faults were met since the last reset."""
        judge(self.requests).assert_ok(strict=True)

    def paces(self, milliseconds: int) -> None:
        """Stream so slowly, until `reset`: a client that hangs up is noticed."""
        state = self._server.state
        state.stream_chaos = replace(state.stream_chaos, chunk_delay_ms=milliseconds)

    @property
    def requests(self) -> list[Any]:
        """Requests so far, oldest first: `.path`, `.model`, `.status`, `.body`, `.fault`."""
        return self._server.state.journal.records(wait=2.0)

    def reset(self) -> None:
        self._server.state.reset()
        self.paces(0)


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """Run llmock on a free port."""
    with LLMockServer() as server:
        yield ModelServer(server)


@dataclass(frozen=True)
class Seen:
    """One request the recorder got; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: Any
    client: Any = None
    """Address and port of the connection it came on."""


@dataclass
class Answer:
    """What the recorder sends back; `body` may be raw bytes. `cut` closes the connection instead.

    `pieces` are sent one by one, in place of `body`; with `cut` the connection breaks after the last.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    pieces: Iterable[bytes] | None = None


class Recorder:
    """An HTTP server that keeps each request and answers with whatever `answer` returns for it."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answer: Callable[[Seen], Answer] = lambda _: Answer(chat_answer("hello"))
        self.url = ""
        self.hung_up = threading.Event()
        """Set when a client went away before it had all pieces."""

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    def answers(self, *answers: Answer) -> None:
        """Answer these in order, the last one for ever."""
        queue = list(answers)
        self.answer = lambda _: queue.pop(0) if len(queue) > 1 else queue[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Say nothing about clients that hang up: tests make them."""


@contextmanager
def recorder(address: str = "127.0.0.1") -> Iterator[Recorder]:
    """Run a recorder on a free port."""
    record = Recorder()
    server = _Server((address, 0), _handler(record))
    record.url = f"http://{address}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield record
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def _handler(record: Recorder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen = Seen(self.path, headers, json.loads(raw) if raw else None, self.client_address)
            record.seen.append(seen)
            self._send(record.answer(seen))

        def _send(self, answer: Answer) -> None:
            if answer.pieces is not None:
                self._send_pieces(answer, answer.pieces)
                return
            if answer.cut:
                self.close_connection = True
                return
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"content-type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _send_pieces(self, answer: Answer, pieces: Iterable[bytes]) -> None:
            self.send_response(answer.status)
            headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
            for name, value in {**headers, **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in pieces:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            except OSError:
                record.hung_up.set()
                self.close_connection = True
                return
            if answer.cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

    return Handler


def chat_answer(text: str | None = None, calls: list[Any] | None = None, **usage: Any) -> dict[str, Any]:
    """An answer in the format of chat completions."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls is not None:
        message["tool_calls"] = calls
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "the-model",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, **usage},
    }


def responses_answer(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """An answer in the format of OpenAI Responses."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "the-model",
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 11,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 2},
            "total_tokens": 18,
        },
        **fields,
    }


def responses_text(text: str) -> dict[str, Any]:
    """A text item of an OpenAI Responses answer."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def anthropic_answer(*content: dict[str, Any], stop_reason: str = "end_turn", **usage: Any) -> dict[str, Any]:
    """An answer in the format of Anthropic messages."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "the-model",
        "content": list(content),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 7, **usage},
    }


def gemini_answer(*parts: dict[str, Any]) -> dict[str, Any]:
    """An answer in the format of Gemini."""
    return {
        "candidates": [
            {"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP", "index": 0}
        ],
        "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18},
        "modelVersion": "the-model",
    }
