"""`polos runs export` and `polos runs replay`: journals as files, and whether the code still fits them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polos.cli.journal import find_database, reading
from polos.cli.runs import find_id
from polos.errors import ConfigurationError
from polos.settings import Settings

if TYPE_CHECKING:
    from polos.engine.replaying import Replay

DEFAULT_LIMIT = 100
VERDICTS = ("same", "goes_on", "other_end", "deviates")
RunIds = Annotated[
    list[str] | None, typer.Argument(metavar="ID…", help="Runs; each stands for its whole tree.")
]


def export(
    run_ids: RunIds = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; .gz compresses. Default: stdout.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All rows there are, except API keys.")] = False,
) -> None:
    """Write the journal of runs to a file, with all their inputs and outputs, for `polos runs replay`."""
    import polos
    from polos.journal.exports import export as exported

    if bool(run_ids) == everything:
        raise ConfigurationError("Name the runs to export, or give --all")
    roots = None if everything else _roots(run_ids or [])
    found = exported(find_database(Settings.from_environment()), roots=roots, polos=polos.__version__)
    if output is None:
        for line in found.lines():
            typer.echo(line)
        return
    found.write(output)
    typer.echo(f"{output}: {len(found.rows.get('run', []))} runs, {len(found.rows.get('step', []))} steps")


def replay(
    run_ids: RunIds = None,
    imports: Annotated[
        str, typer.Option("--import", help="Modules that define what ran, comma separated; POLOS_IMPORTS.")
    ] = "",
    file: Annotated[Path | None, typer.Option(help="Replay what 'polos runs export' wrote instead.")] = None,
    name: Annotated[str | None, typer.Option(help="The newest runs of this agent, workflow or tool.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many trees, where no ID is given.")] = DEFAULT_LIMIT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """Try the code of this folder against recorded runs, without executing a step or writing anything.

    Exit code 1: the code asks for other steps than a run recorded; deployed, it would block such runs.
    """
    import asyncio

    from polos.journal.exports import read_export
    from polos.worker.replays import replay_export, replay_runs

    settings = _imported(imports)
    if file is not None:
        found = asyncio.run(replay_export(read_export(file), settings))
    else:
        roots = _roots(run_ids) if run_ids else _newest(settings, name, limit)
        found = asyncio.run(replay_runs(find_database(settings), settings, roots=roots))
    _tell(found, as_json=as_json)
    if any(one.verdict == "deviates" for one in found):
        raise typer.Exit(1)


def _imported(imports: str) -> Settings:
    from polos.worker.definitions import import_modules

    settings = Settings.from_environment()
    modules = tuple(each.strip() for each in imports.split(",") if each.strip()) or settings.imports
    if not modules:
        raise ConfigurationError(
            "There is no code to replay runs against: name its modules, as in "
            "'polos runs replay --import my_agents', or set POLOS_IMPORTS"
        )
    import_modules(modules)
    return settings


def _roots(run_ids: list[str]) -> list[str]:
    from polos.journal.runs import READ_RUN, run_record

    with reading() as journal:
        ids = [find_id(journal, run_id) for run_id in run_ids]
        return [str(run_record(journal.read(READ_RUN, {"run": one})[0])["root_id"]) for one in ids]


def _newest(settings: Settings, name: str | None, limit: int) -> list[str]:
    from polos.journal.listing import RunFilter, listed_run, newest_runs

    wanted = RunFilter(project=settings.project_id, name=name, roots_only=name is None)
    query = newest_runs(wanted, limit=limit)
    with reading() as journal:
        rows = [listed_run(row) for row in journal.read(query.statement, query.params)]
    return list(dict.fromkeys(str(row["root_id"]) for row in rows))


def _tell(found: list[Replay], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
        return
    for one in found:
        if one.verdict != "same":
            typer.echo(f"{one.verdict:<10} {one.run_id} {one.name} ({one.status}): {one.reason}")
    counts = Counter(str(one.verdict) for one in found)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    typer.echo(f"{len(found)} runs: {told}")
