"""Sends a request as one for a stream, and returns what would have come without: the whole answer.

Who asked, be it LiteLLM or the OpenAI client, never learns that the answer was streamed, so whole and
streamed answers are read by the same code.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from polos.models.recent import Recent
from polos.models.request import Item
from polos.models.streams.anthropic import AnthropicAssembler
from polos.models.streams.assembler import Assembler, Sink, StreamError
from polos.models.streams.chat import ChatAssembler
from polos.models.streams.events import EventCutter
from polos.models.streams.gemini import GeminiAssembler
from polos.models.streams.ollama import OllamaAssembler
from polos.models.streams.responses import ResponsesAssembler

Send = Callable[[httpx.Request], Awaitable[httpx.Response]]
Refused = Recent[tuple[str, str], frozenset[str]]

_DONE = b"[DONE]"
_LINGER_SECONDS = 0.1
"""How long a stream that said its last word may take to end, so that its connection can be used again."""
_NOT_STREAMED = ("application/json", "text/html")
_ABOUT_THE_BODY = ("content-type", "content-length", "content-encoding", "transfer-encoding")


@dataclass(frozen=True)
class Format:
    """How one wire streams: the fields of a request that ask for it, and who reads the answer."""

    path: re.Pattern[str]
    assembler: type[Assembler]
    fields: Item


_STREAM = {"stream": True}
_FORMATS = (
    Format(
        re.compile(r"/chat/completions$"),
        ChatAssembler,
        {**_STREAM, "stream_options": {"include_usage": True}},
    ),
    Format(re.compile(r"/responses$"), ResponsesAssembler, _STREAM),
    Format(re.compile(r"/messages$"), AnthropicAssembler, _STREAM),
    Format(re.compile(r":generateContent$"), GeminiAssembler, {}),
    Format(re.compile(r"/api/chat$"), OllamaAssembler, _STREAM),
)


@dataclass
class Streamed:
    """What a streamed call needs beyond its request.

    Attributes:
        sink: Told of each piece.
        chunk_timeout_seconds: How long the stream may be silent once it has begun.
        assembler: What has come so far; None before the stream begins.
    """

    sink: Sink
    chunk_timeout_seconds: float
    assembler: Assembler | None = None


async def send_streamed(
    send: Send, request: httpx.Request, streamed: Streamed, *, refused: Refused
) -> httpx.Response:
    """Send `request`, have its answer streamed where that is possible, and return it whole.

    Args:
        send: Sends a request and returns its answer with the body still to come.
        request: As for an answer that is not streamed.
        streamed: Who is told of the pieces.
        refused: By URL and model, the fields about streams that were refused; remembered here.

    Raises:
        StreamError: The stream broke, fell silent, made no sense or reported an error.
    """
    found = next((each for each in _FORMATS if each.path.search(request.url.path)), None)
    if found is None:
        return await _read_whole(await send(request))
    response = await _ask_for_a_stream(send, request, found, refused=refused)
    if not response.is_success or _content_type(response) in _NOT_STREAMED:
        return await _read_whole(response)
    assembler = streamed.assembler = found.assembler(streamed.sink)
    await _read(response, assembler, streamed.chunk_timeout_seconds)
    return _assembled(response, assembler.answer())


async def _read_whole(response: httpx.Response) -> httpx.Response:
    await response.aread()
    return response


async def _ask_for_a_stream(
    send: Send, request: httpx.Request, found: Format, *, refused: Refused
) -> httpx.Response:
    """Send `request` without what this server refused for this model; a refused request costs nothing."""
    body = json.loads(request.content)
    key = (str(request.url.copy_with(query=None)), str(body.get("model", "")))
    without = refused.get(key, frozenset())
    while True:
        response = await send(_streaming_request(request, found, body=body, without=without))
        refused_now = await _refused_fields(response)
        if refused_now <= without:
            break
        without |= refused_now
    if without and response.is_success:  # else it was refused for something else
        refused[key] = without
    return response


def _streaming_request(
    request: httpx.Request, found: Format, *, body: Item, without: frozenset[str]
) -> httpx.Request:
    if "stream" in without:
        return request
    asked = {name: value for name, value in found.fields.items() if name not in without}
    return httpx.Request(
        request.method,
        _streaming_url(request.url),
        headers=_headers(request.headers, without=("content-length",)),
        json={**asked, **body, **({"stream": True} if asked else {})},
        extensions=request.extensions,
    )


def _streaming_url(url: httpx.URL) -> httpx.URL:
    if not url.path.endswith(":generateContent"):
        return url
    path = url.path.removesuffix(":generateContent") + ":streamGenerateContent"
    return url.copy_with(path=path).copy_merge_params({"alt": "sse"})


async def _refused_fields(response: httpx.Response) -> frozenset[str]:
    """Return which field about streams the server does not take, by what it says: few name it exactly."""
    if response.status_code not in (400, 422):
        return frozenset()
    said = (await _read_whole(response)).text
    if "stream_options" in said:
        return frozenset(("stream_options",))
    return frozenset(("stream",)) if re.search(r"\bstream(ing|ed)?\b", said) else frozenset()


async def _read(response: httpx.Response, assembler: Assembler, chunk_timeout_seconds: float) -> None:
    """Feed the stream to `assembler` until it ends, and close it."""
    cutter = EventCutter()
    try:
        async with asyncio.timeout(chunk_timeout_seconds) as silence:
            async for received in response.aiter_bytes():
                _feed(assembler, cutter.feed(received))
                seconds = _LINGER_SECONDS if assembler.is_finished else chunk_timeout_seconds
                silence.reschedule(asyncio.get_running_loop().time() + seconds)
            _feed(assembler, cutter.end())
    except TimeoutError as error:
        if not assembler.is_complete:
            raise StreamError(f"the stream was silent for {chunk_timeout_seconds:g} seconds") from error
    except httpx.TransportError as error:
        if not assembler.is_complete:
            raise StreamError(f"the stream was cut off ({error or type(error).__name__})") from error
    finally:
        await response.aclose()
    if not assembler.is_complete:
        raise StreamError("the stream ended before the answer was complete")


def _feed(assembler: Assembler, events: list[bytes]) -> None:
    for event in events:
        if assembler.is_finished:
            return
        if event == _DONE:
            assembler.is_finished = True
        else:
            assembler.add(_decoded(event))


def _decoded(event: bytes) -> Item:
    try:
        decoded = json.loads(event)
    except (ValueError, RecursionError) as error:
        raise StreamError(f"the stream holds what is no JSON: {event[:80]!r}") from error
    if not isinstance(decoded, dict):
        raise StreamError(f"the stream holds what is no JSON object: {event[:80]!r}")
    return decoded


def _content_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _assembled(response: httpx.Response, body: Any) -> httpx.Response:
    headers = _headers(response.headers, without=_ABOUT_THE_BODY)
    headers.append(("content-type", "application/json"))
    # In ASCII, so that the halves of an emoji that came in two pieces are one again when they are read.
    content = json.dumps(body).encode()
    whole = httpx.Response(response.status_code, headers=headers, content=content, request=response.request)
    whole.elapsed = response.elapsed
    return whole


def _headers(headers: httpx.Headers, *, without: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.multi_items() if name.lower() not in without]
