"""Streams of the clients that LiteLLM has of its own for some providers, in its translation."""

from __future__ import annotations

import asyncio
from typing import Any

from polos.models.request import Item
from polos.models.streams.assembler import StreamError
from polos.models.streams.chat import ChatAssembler
from polos.models.streams.reading import Streamed


async def read_translated(stream: Any, streamed: Streamed) -> Item:
    """Pass on what LiteLLM's `stream` yields, and return the chat completion it adds up to.

    Raises:
        StreamError: It fell silent, or ended before the answer was complete.
    """
    assembler = streamed.assembler = ChatAssembler(streamed.sink)
    seconds = streamed.chunk_timeout_seconds
    try:
        async with asyncio.timeout(seconds) as silence:
            async for chunk in stream:
                assembler.add(chunk.model_dump(exclude_none=True))
                silence.reschedule(asyncio.get_running_loop().time() + seconds)
    except TimeoutError as error:
        raise StreamError(f"the stream was silent for {seconds:g} seconds") from error
    finally:
        await stream.aclose()
    # LiteLLM makes a finish reason up for a stream that ended without.
    if not assembler.is_complete or getattr(stream, "received_finish_reason", "unknown") is None:
        raise StreamError("the stream ended before the answer was complete")
    return assembler.answer()
