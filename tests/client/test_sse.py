"""Server-sent events are read as the HTML standard says, however they are cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from polos.remote.sse import Frame, frames

STREAM = (
    "\ufeffretry: 1500\n\n"
    ": a comment\n\n"
    'id: 1.2-3\nevent: text_delta\ndata: {"content": "ä\u2028b\u0085c"}\n\n'
    "id: 4\r\ndata: one\r\ndata: two\r\n\r\n"
    "id\rdata:\r\r"
    "id: a\0b\ndata:  blank\nevent\nretry: soon\nunknown: x\n\n"
    "id: 5\n\n"
    "\n\n"
    "data: cut off\n"
).encode()
EXPECTED = [
    Frame(retry_seconds=1.5),
    Frame(),
    Frame("1.2-3", "text_delta", '{"content": "ä\u2028b\u0085c"}'),
    Frame("4", data="one\ntwo"),
    Frame("", data=""),
    Frame(data=" blank"),
    Frame("5"),
]


async def read(chunks: Sequence[bytes]) -> list[Frame]:
    async def arriving() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [frame async for frame in frames(arriving())]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 4096])
async def test_frames_are_the_same_however_the_bytes_arrive(size: int) -> None:
    chunks = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]

    assert await read(chunks) == EXPECTED


async def test_every_cut_in_two_gives_the_same() -> None:
    """Between the halves of a line's end, and of a character."""
    for place in range(len(STREAM)):
        assert await read([STREAM[:place], STREAM[place:]]) == EXPECTED


async def test_nothing_is_nothing() -> None:
    assert await read([]) == await read([b""]) == []
