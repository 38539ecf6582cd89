"""`polos approvals`: what runs ask people, the answers, and approvals that stand."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from polos import serialization
from polos.cli.cells import age, first_line, list_console, moment
from polos.cli.journal import reading
from polos.cli.runs import RunId, find_id
from polos.errors import AnswerError, ConfigurationError, SerializationError, ValueTooLargeError
from polos.forms import Form, form_of
from polos.journal.database import Connection
from polos.journal.questions import READ_QUESTIONS, Question, questions_of
from polos.journal.runs import READ_RUN, run_record
from polos.journal.standing_approvals import Standing, listing, revoke
from polos.journal.workers import READ_CLOCK
from polos.records import api_time
from polos.settings import Settings
from polos.step_names import shown
from polos.waits import answer_wait

app = typer.Typer(
    help="Questions of runs to people, and their answers. Without a command, list what is open.",
    invoke_without_command=True,
)
DEFAULT_LIMIT = 50
MAX_CELL_CHARACTERS = 60
ProjectOption = Annotated[str | None, typer.Option(metavar="PROJECT", help="Default: POLOS_PROJECT_ID.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeyArgument = Annotated[
    str | None,
    typer.Argument(metavar="[KEY]", help="Of the question, or its beginning; not needed if one is open."),
]


@app.callback()
def show_open(ctx: typer.Context, project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the questions that wait for an answer."""
    if ctx.invoked_subcommand is None:
        list_open(None, project=project, as_json=as_json)


@app.command("list")
def list_open(
    session: Annotated[str | None, typer.Option(help="Only of this session.")] = None,
    project: ProjectOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = DEFAULT_LIMIT,
    as_json: JsonOption = False,
) -> None:
    """List the questions that wait for an answer, the oldest first."""
    project = project or Settings.from_environment().project_id
    with reading() as journal:
        found = _questions(journal, project, session_id=session, limit=limit)
        now = journal.read(READ_CLOCK, {})[0][0]
    if as_json:
        typer.echo(json.dumps([_as_json(one) for one in found], indent=2, ensure_ascii=False))
    elif found:
        list_console().print(_table(found, now))
    else:
        typer.echo("Nothing waits for an answer.")


@app.command("show")
def show_question(run_id: RunId, key: KeyArgument = None) -> None:
    """Show a question: what is asked, and which fields an answer has."""
    with reading() as journal:
        question = _one(journal, run_id, key)
    _print(question, form_of(serialization.loads(question.asked), shown(question.step)))


@app.command("answer")
def answer_question(
    run_id: RunId,
    key: KeyArgument = None,
    approve: Annotated[
        bool | None, typer.Option("--approve/--reject", help="Let it happen, or not.", show_default=False)
    ] = None,
    feedback: Annotated[str | None, typer.Option(help="Why, for whoever asks.")] = None,
    always: Annotated[
        bool, typer.Option("--always", help="With --approve: the same call is not asked about again.")
    ] = False,
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Fill in a field.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="The answer as one JSON object.")] = None,
    by: Annotated[str | None, typer.Option(help="Who answers; default: you.")] = None,
) -> None:
    """Answer a question; the run goes on within a second."""
    given = _answer(approve, feedback, values or [], data, always=always)
    settings = Settings.from_environment()
    with reading() as journal:
        question = _one(journal, run_id, key)
        root = run_record(journal.read(READ_RUN, {"run": question.root_id})[0])
        name = shown(question.step)
        try:
            answered = answer_wait(
                journal,
                root,
                name,
                given,
                max_value_bytes=settings.max_value_bytes,
                ring_again=0.0,  # a sweeper rings within a second
                run_id=question.run_id,
                answered_by=by or _user(),
            )
        except (AnswerError, SerializationError, ValueTooLargeError) as error:
            raise ConfigurationError(str(error)) from error
    if answered is None:
        raise ConfigurationError(f"{name!r} of run {question.root_id} waits no more; nothing was changed")
    typer.echo(f"Answered {name!r} of run {question.root_id}.")


@app.command("standing")
def list_standing(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the calls of tools that were allowed for the rest of their session."""
    settings = Settings.from_environment()
    query = listing(project or settings.project_id, days=settings.standing_approval_days)
    with reading() as journal:
        found = [Standing(*row) for row in journal.read(*query)]
    if as_json:
        typer.echo(json.dumps([vars(one) for one in found], indent=2, ensure_ascii=False))
    elif found:
        list_console().print(_standing_table(found))
    else:
        typer.echo("No call of a tool is allowed without asking.")


@app.command("revoke")
def revoke_standing(
    approval_id: Annotated[
        str, typer.Argument(metavar="ID", help="As 'polos approvals standing' shows it, or its beginning.")
    ],
    project: ProjectOption = None,
) -> None:
    """Let a call that was allowed for its session be asked about again."""
    settings = Settings.from_environment()
    project = project or settings.project_id
    with reading() as journal:
        rows = journal.read(*listing(project, days=0.0))
        fitting = [row[0] for row in rows if row[0].startswith(approval_id)]
        if len(fitting) != 1 or not journal.commit([revoke(fitting[0], project=project)])[0]:
            problem = "several" if len(fitting) > 1 else "no"
            raise ConfigurationError(f"There are {problem} standing approvals {approval_id!r}")
    typer.echo(f"The call {fitting[0][:12]} is asked about again.")


def _questions(journal: Connection, project: str, *, limit: int, **only: str | None) -> list[Question]:
    rows = journal.read(READ_QUESTIONS, questions_of(project, limit=limit, **only))
    return [Question(*row) for row in rows]


def _one(journal: Connection, run_id: str, key: str | None) -> Question:
    """Return the open question of a run's tree that `key` names, or the only one.

    Raises:
        ConfigurationError: There is none, or there are several.
    """
    run = run_record(journal.read(READ_RUN, {"run": find_id(journal, run_id)})[0])
    found = _questions(journal, run["project"], root_id=run["root_id"], limit=DEFAULT_LIMIT)
    names = [shown(one.step) for one in found]
    fitting = [one for one in found if key is not None and shown(one.step) == key]
    fitting = fitting or [one for one in found if key is None or shown(one.step).startswith(key)]
    if len({one.step for one in fitting}) == 1:
        return fitting[0]
    if not found:
        raise ConfigurationError(f"Run {run['root_id']} waits for no answer")
    problem = f"has no question {key!r}" if key is not None and not fitting else "waits for several answers"
    raise ConfigurationError(f"Run {run['root_id']} {problem}; the keys are: {', '.join(names)}")


def _answer(
    approve: bool | None, feedback: str | None, values: Sequence[str], data: str | None, *, always: bool
) -> dict[str, Any]:
    answer: dict[str, Any] = {} if data is None else _object(data)
    for value in values:
        name, is_one, text = value.partition("=")
        if not (name and is_one):
            raise ConfigurationError(f"--set {value!r} is not FIELD=VALUE")
        answer[name] = text
    if approve is not None:
        answer["approved"] = approve
    if feedback is not None:
        answer["feedback"] = feedback
    if always:
        answer["allow_always"] = True
    if not answer:
        raise ConfigurationError("Say --approve or --reject, or give the answer with --set or --data")
    return answer


def _object(text: str) -> dict[str, Any]:
    try:
        data = serialization.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"--data is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"--data must be a JSON object, not {type(data).__name__}")
    return data


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without accounts
        return None


def _as_json(question: Question) -> dict[str, Any]:
    return {
        "execution_id": question.root_id,
        "workflow_id": question.root_name,
        "step_key": shown(question.step),
        "session_id": question.session_id,
        "suspended_execution_id": question.run_id,
        "suspended_workflow_id": question.run_name,
        "data": serialization.loads(question.asked),
        "asked_at": api_time(question.asked_at),
        "expires_at": api_time(question.expires_at),
    }


def _table(found: list[Question], now: float) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in ("run", "of", "key", "asks", "about", "age", "expires"):
        table.add_column(heading, overflow="fold")
    for one in found:
        form = form_of(serialization.loads(one.asked), shown(one.step))
        about = "; ".join(f"{name}: {' '.join(value.split())}" for name, value in form.context)
        table.add_row(
            one.root_id,
            Text(one.root_name),
            Text(shown(one.step)),
            Text(first_line(form.title, max_characters=MAX_CELL_CHARACTERS)),
            Text(first_line(about or form.description, max_characters=MAX_CELL_CHARACTERS)),
            age(now - one.asked_at),
            moment(one.expires_at) if one.expires_at is not None else "",
        )
    return table


def _print(question: Question, form: Form) -> None:
    console = list_console()
    console.print(Text(form.title, style="bold"))
    for text in filter(None, (form.description, *(f"{name}: {value}" for name, value in form.context))):
        console.print(Text(text))
    for field in form.fields:
        choices = ", ".join(str(value) for _, value in field.options)
        notes = [field.type, *(["required"] if field.required else []), *([choices] if choices else [])]
        console.print(Text(f"  {field.key} ({'; '.join(notes)}): {field.label}"))
    console.print(Text(f"Answer with: polos approvals answer {question.root_id} {shown(question.step)}"))


def _standing_table(found: list[Standing]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in ("id", "session", "agent", "tool", "arguments", "since", "by"):
        table.add_column(heading, overflow="fold")
    for one in found:
        arguments = Text(first_line(one.arguments, max_characters=MAX_CELL_CHARACTERS))
        cells = (one.id[:12], one.session_id, Text(one.agent), Text(one.tool), arguments)
        table.add_row(*cells, moment(one.created_at), Text(one.answered_by or ""))
    return table
