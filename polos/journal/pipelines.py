"""All commands of a transaction in one write to the server.

The driver writes each command of a pipeline by itself and may let the loop run in between: a loop that then
blocks holds the rows that the server has locked so far, and each write gives threads the interpreter.
Here commands are made first and written without a pause, so the server gets BEGIN and COMMIT together.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import psycopg

Command = tuple[str, Any]
Blocking = psycopg.Connection[Any]
OnLoop = psycopg.AsyncConnection[Any]
AnyCursor = psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]
AnyPipeline = psycopg.Pipeline | psycopg.AsyncPipeline

# The steps of `execute`, of which the driver makes no public API. A driver without them writes one by one.
_STEPS = ("_start_query", "_convert_query", "_maybe_prepare_gen")
_knows_driver = all(hasattr(psycopg.Cursor, name) for name in _STEPS)


def run_together(driver: Blocking, wanted: Sequence[Command]) -> list[psycopg.Cursor[Any]]:
    """Run commands in one pipeline; return their cursors, one for each.

    Raises:
        psycopg.Error: A command failed; what came after it was not run.
    """
    with driver.pipeline() as pipeline:
        if not _knows_driver:
            return [driver.execute(*command) for command in wanted]
        cursors = [driver.cursor() for _ in wanted]
        _send(driver, pipeline, cursors, wanted)
    return cursors


async def run_together_async(driver: OnLoop, wanted: Sequence[Command]) -> list[psycopg.AsyncCursor[Any]]:
    """Do the same on an event loop, which goes on only when everything is with the server.

    Raises:
        psycopg.Error: A command failed; what came after it was not run.
    """
    async with driver.pipeline() as pipeline:
        if not _knows_driver:
            return [await driver.execute(*command) for command in wanted]
        cursors = [driver.cursor() for _ in wanted]
        _send(driver, pipeline, cursors, wanted)
    return cursors


def _send(
    driver: Blocking | OnLoop, pipeline: AnyPipeline, cursors: Sequence[AnyCursor], wanted: Sequence[Command]
) -> None:
    """Make all messages, then write them. What cannot be made is found before anything is sent."""
    queries = [_made(cursor, *command) for cursor, command in zip(cursors, wanted, strict=True)]
    for cursor, query in zip(cursors, queries, strict=True):
        _at_once(cursor._maybe_prepare_gen(query))
    _at_once(driver._prepared.maintain_gen(driver))
    messages = pipeline.command_queue
    while messages:
        messages.popleft()()
    driver.pgconn.flush()  # what the kernel does not take at once follows when the pipeline ends


def _made(cursor: AnyCursor, text: str, params: Any) -> Any:
    _at_once(cursor._start_query(text))
    return cursor._convert_query(text, params)


def _at_once(steps: Generator[Any, Any, Any]) -> None:
    """Run steps of the driver that do not wait in a pipeline."""
    for _ in steps:
        raise RuntimeError("The driver waits for the server in the middle of a pipeline")
