"""`polos limits`: what models may be asked, and who waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from polos.allowances import Allowance
from polos.cli.cells import age, list_console
from polos.cli.journal import reading
from polos.journal.allowances import COUNT_WAITING_TURNS, READ_ALLOWANCES
from polos.model_limits import limit_for
from polos.settings import Settings


@dataclass(frozen=True)
class ShownAllowance:
    """One model with one key.

    Attributes:
        model: Provider and model.
        key: Digest of key and base URL: tells keys apart and nothing else.
        limit: As configured here; None where only pauses are kept.
        counted_in: ``redis``, or ``database`` while Redis was away.
        next_call_seconds: Until another call may begin.
        line_seconds: What a newcomer would wait.
        paused_seconds: Until the end of a pause that the provider wants.
    """

    model: str
    key: str
    limit: str | None
    counted_in: str
    next_call_seconds: float
    line_seconds: float
    paused_seconds: float


def show_limits(
    project: Annotated[str | None, typer.Option(help="Default: POLOS_PROJECT_ID.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the limits of models (POLOS_MODEL_LIMITS as set here), and how long calls wait for them."""
    settings = Settings.from_environment()
    project = project or settings.project_id
    with reading() as journal:
        [(waiting,)] = journal.read(COUNT_WAITING_TURNS, {"project": project})
        stored = journal.read(READ_ALLOWANCES, {"project": project})
    found = [
        *_shown(settings, "redis", *asyncio.run(_in_redis(settings, project))),
        *_shown(
            settings, "database", stored[0][0] if stored else 0.0, {r[1]: Allowance(*r[2:]) for r in stored}
        ),
    ]
    limits = [str(limit) for limit in settings.model_limits]
    if as_json:
        told = {"limits": limits, "waiting_turns": waiting, "models": [asdict(shown) for shown in found]}
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    typer.echo(f"Limits: {'; '.join(limits) or 'none (POLOS_MODEL_LIMITS is not set here)'}")
    typer.echo(f"Turns that wait for a limit or a pause: {waiting}")
    if found:
        list_console().print(_table(found))


async def _in_redis(settings: Settings, project: str) -> tuple[float, dict[str, Allowance]]:
    from polos.streaming.allowances import AllowancesAwayError, SharedAllowances
    from polos.worker.broker import find_redis

    if (server := find_redis(settings)) is None:
        return 0.0, {}
    shared = SharedAllowances(server, prefix=settings.redis_prefix)
    try:
        return await shared.read_all(f"{project}:")
    except AllowancesAwayError as error:
        typer.echo(f"Redis at {server} does not answer ({error}): what it counts is not shown.", err=True)
        return 0.0, {}
    finally:
        await shared.close()


def _shown(
    settings: Settings, counted_in: str, now: float, allowances: dict[str, Allowance]
) -> Iterator[ShownAllowance]:
    for name, state in sorted(allowances.items()):
        model, _, key = name.partition(":")[2].rpartition(":")
        limit = limit_for(settings.model_limits, model)
        burst = limit.burst_seconds if limit else 0.0
        clock = max(now, state.paused) - state.lag
        yield ShownAllowance(
            model,
            key,
            None if limit is None else str(limit),
            counted_in,
            next_call_seconds=round(max(state.gate - burst - now, state.paused - now, 0.0), 3),
            line_seconds=round(max(max(clock, state.tail - burst) + state.lag - now, 0.0), 3),
            paused_seconds=round(max(state.paused - now, 0.0), 3),
        )


def _table(found: list[ShownAllowance]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in ("model", "key", "limit", "counted in", "next call in", "a newcomer waits", "paused for"):
        table.add_column(heading, overflow="fold")
    for shown in found:
        table.add_row(
            Text(shown.model),
            shown.key,
            Text(shown.limit or "none"),
            shown.counted_in,
            _seconds(shown.next_call_seconds),
            _seconds(shown.line_seconds),
            Text(_seconds(shown.paused_seconds), style="yellow"),
        )
    return table


def _seconds(seconds: float) -> str:
    return "" if seconds == 0 else f"{seconds:.2f} s" if seconds < 60 else age(seconds)
