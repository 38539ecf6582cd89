"""`polos runs retry`, `fork` and `stuck`: letting runs go on, and what was found that nothing would move."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from polos import serialization
from polos.cli.cells import age
from polos.cli.journal import reading
from polos.cli.runs import RunId, find_id
from polos.errors import ConfigurationError
from polos.forking import forked_row, plan_fork
from polos.journal.database import Connection
from polos.journal.forks import create_fork
from polos.journal.runs import READ_RUN, NewRun, run_record
from polos.journal.steps import READ_STEP_DETAILS, step_details
from polos.journal.stuck import READ_FINDINGS
from polos.retrying import not_retried, retrying
from polos.settings import Settings
from polos.transport import ForkRequest


def retry(run_id: RunId) -> None:
    """Let a failed or cancelled run go on from its journal; completed steps keep their outcomes."""
    with reading() as journal:
        run_id = find_id(journal, run_id)
        run = _row(journal, run_id)
        try:
            [rows] = journal.commit([retrying(run, ring_again=0.0)])
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        if not rows:
            raise ConfigurationError(str(not_retried(_row(journal, run_id))))
    typer.echo(f"Run {run_id} is queued again.")


def fork(
    run_id: RunId,
    from_step: Annotated[
        str | None,
        typer.Option("--from-step", help="Key of the first step that is executed again; by default none is."),
    ] = None,
    payload: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="Instead of the run's own input.")
    ] = None,
    patch: Annotated[
        list[str] | None,
        typer.Option("--patch", metavar="KEY=JSON", help="A value for a recorded outcome; repeatable."),
    ] = None,
    deployment: Annotated[str | None, typer.Option(help="Version of the code. Default: the run's.")] = None,
) -> None:
    """Start a new run from a copy of a run's journal; the run itself is left alone."""
    settings = Settings.from_environment()
    limit = settings.max_value_bytes
    with reading() as journal:
        source = _row(journal, find_id(journal, run_id))
        request = ForkRequest(
            execution_id=source["id"],
            from_step=from_step,
            input=None if payload is None else _json("--input", payload),
            patch=dict(_patch(text) for text in patch or ()),
        )
        steps = [step_details(row) for row in journal.read(READ_STEP_DETAILS, {"run": source["id"]})]
        try:
            plan = plan_fork(
                source["id"], steps, from_step=from_step, patch=request.patch, max_value_bytes=limit
            )
            row = forked_row(
                source, request, deployment=deployment or source["deployment"], max_value_bytes=limit
            )
        except (TypeError, ValueError) as error:
            raise ConfigurationError(str(error)) from error
        new = NewRun(**row)
        journal.commit([create_fork(new, plan.names, plan.replacements, seq=plan.seq, ring_again=0.0)])
    typer.echo(new.id)


_FOUND = ("name", "count", "run_id", "step", "found_at", "now")


def _row(journal: Connection, run_id: str) -> dict[str, Any]:
    return run_record(journal.read(READ_RUN, {"run": run_id})[0])


def _patch(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign:
        raise ConfigurationError(f"--patch {text!r} is not KEY=JSON, such as --patch 'price=12.5'")
    return key, _json(f"--patch {key}", value)


def _json(option: str, text: str) -> Any:
    try:
        return serialization.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {text[:80]!r} is no JSON ({error}); text needs quotes") from error


def stuck(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """Tell which rows sweepers found that nothing would have moved, how often, and where last."""
    with reading() as journal:
        found = [dict(zip(_FOUND, row, strict=True)) for row in journal.read(READ_FINDINGS, {})]
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for one in found:
        where = f"{one['run_id']} {one['step'] or ''}".rstrip()
        ago = age(one["now"] - one["found_at"])
        typer.echo(f"{one['count']} times: {one['name']}, the last {ago} ago: {where}")
    if not found:
        typer.echo("Nothing was found that nothing would have moved.")
