"""`polos sessions`: what agents remember of sessions."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from polos import serialization
from polos.cli.cells import moment
from polos.cli.journal import reading
from polos.errors import ConfigurationError
from polos.journal.database import Connection
from polos.journal.forgetting import READ_ALL_MESSAGES, READ_SUMMARIES
from polos.journal.memory import SessionKey
from polos.memory.summaries import transcript
from polos.remembering import delete_memory, read_memory, remembering_agents
from polos.settings import Settings

app = typer.Typer(help="Sessions: what agents remember of them.", no_args_is_help=True)
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="Its id.")]
AgentOption = Annotated[str | None, typer.Option(metavar="AGENT", help="Only what this agent remembers.")]
ProjectOption = Annotated[str | None, typer.Option(metavar="PROJECT", help="Default: POLOS_PROJECT_ID.")]


@app.command("show")
def show_session(
    session_id: SessionId,
    agent: AgentOption = None,
    project: ProjectOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what the next run begins with, as JSON.")
    ] = False,
) -> None:
    """Print what agents remember of a session, each its own."""
    place = project or Settings.from_environment().project_id
    with reading() as journal:
        agents = [agent] if agent else remembering_agents(journal, place, session_id)
        keys = [SessionKey(place, session_id, name) for name in agents]
        if as_json:
            typer.echo(json.dumps(_loaded(journal, keys), indent=2, ensure_ascii=False))
            return
        shown = [key for key in keys if _show(journal, key)]
    if not shown:
        typer.echo(f"Nothing is remembered of session {session_id!r} in project {place!r}.")


@app.command("delete")
def delete_session(
    session_id: SessionId,
    agent: AgentOption = None,
    project: ProjectOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget a session. Runs under way keep what they have loaded."""
    place = project or Settings.from_environment().project_id
    with reading() as journal:
        agents = [agent] if agent else remembering_agents(journal, place, session_id)
        if not agents:
            raise ConfigurationError(
                f"Nothing is remembered of session {session_id!r} in project {place!r}: nothing to delete"
            )
        if not yes:
            typer.confirm(f"Forget session {session_id!r} of {', '.join(agents)}?", abort=True)
        count = sum(delete_memory(journal, place, session_id, name) for name in agents)
    typer.echo(f"Session {session_id!r} is forgotten by {count} agent(s).")


def _loaded(journal: Connection, keys: list[SessionKey]) -> list[dict[str, Any]]:
    return [{"agent_id": key.agent, **dict(read_memory(journal, key))} for key in keys]


def _show(journal: Connection, key: SessionKey) -> bool:
    """Print all that is kept of one memory; return whether there is anything."""
    rows = journal.read(READ_ALL_MESSAGES, key.params())
    summaries = journal.read(READ_SUMMARIES, key.params())
    if not rows and not summaries:
        return False
    console = Console()
    console.print(Text(key.agent, style="bold"))
    folded = 0
    for text, first, last in summaries:
        folded = last
        of = f"messages {first} to {last}" if last >= first else "earlier messages"
        console.print(Text(f"summary of {of}: {text}", style="dim"), soft_wrap=True)
    for number, run_id, item, created_at in rows:
        style = "dim" if number <= folded else ""
        said = "\n".join(transcript([serialization.loads(item)]))
        head = f"{number:>4}  {moment(created_at)}  {run_id or 'a program'}"
        console.print(Text(f"{head}\n      {said}", style=style), soft_wrap=True)
    return True
