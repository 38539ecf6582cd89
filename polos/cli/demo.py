"""`polos demo`: an agent on two workers, one of them killed, and the proof that nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from polos import PolosClient
from polos.cli.journal import find_database
from polos.demo.proof import Proof, prove
from polos.demo.question import AGENT_ID, DEFAULT_MODEL, MODEL_VARIABLE, QUESTION
from polos.demo.stage import Stage, Worker, open_stage
from polos.demo.stand_in import StandIn, stand_in_model
from polos.demo.story import Scene, Teller, look, worker_pids
from polos.direct import DirectTransport
from polos.errors import ConfigurationError, ServiceUnavailableError
from polos.journal import schema
from polos.journal.database import Connection

KEY_VARIABLE = "OPENAI_API_KEY"
LOOK_EVERY_SECONDS = 0.05
SET_UP_SECONDS = 60.0
RUN_SECONDS = 55.0
NAMES = ("A", "B")
PROVEN = "Proven: a worker died, the run was finished, and nothing that had been done was done again."
NOT_PROVEN = "Not proven."


class Provider(StrEnum):
    """Who answers."""

    STAND_IN = "stand-in"
    OPENAI = "openai"


def run_demo(
    provider: Annotated[
        Provider | None,
        typer.Option(help="Who answers: a stand-in on this machine (no key, no network), or OpenAI."),
    ] = None,
    model: Annotated[str, typer.Option(help="Model to ask, with --provider openai.")] = DEFAULT_MODEL,
) -> None:
    """Kill a worker in the middle of an agent's run, and see the run go on without doing anything twice."""
    console = Console(highlight=False)
    chosen = _chosen(provider)
    try:
        proof = _show(console, chosen, model)
    except ServiceUnavailableError as error:
        proof = Proof([], [str(error)])
    for finding in proof.findings:
        console.print(Text(finding), soft_wrap=True)
    for problem in proof.problems:
        console.print(Text(f"Problem: {problem}", style="red"), soft_wrap=True)
    verdict = Text(PROVEN, style="bold green") if proof.holds else Text(NOT_PROVEN, style="bold red")
    console.print(verdict, soft_wrap=True)
    raise typer.Exit(0 if proof.holds else 1)


def _chosen(provider: Provider | None) -> Provider:
    """Return who answers; a person at a terminal who has a key is asked.

    Raises:
        ConfigurationError: OpenAI is wanted and there is no key.
    """
    has_key = bool(os.environ.get(KEY_VARIABLE, "").strip())
    if provider is None and has_key and sys.stdin.isatty():
        asked = typer.confirm(f"{KEY_VARIABLE} is set. Ask the real model? It costs less than a cent")
        provider = Provider.OPENAI if asked else Provider.STAND_IN
    if provider is Provider.OPENAI and not has_key:
        raise ConfigurationError(f"--provider openai needs a key: set {KEY_VARIABLE}, or leave it out")
    return provider or Provider.STAND_IN


def _show(console: Console, provider: Provider, model: str) -> Proof:
    with _model_server(provider) as stand_in:
        more = {MODEL_VARIABLE: model} if stand_in is None else stand_in.environment
        with open_stage(more) as stage, _open_journal(stage) as journal:
            _set_up(console, stage, journal, stand_in)
            scene, killed = _perform(Teller(console, stage), stage, journal)
            answer = _answer(scene)
            console.print(Text(f"\n{answer}\n", style="bold"), soft_wrap=True)
            return prove(
                scene.evidence(killed=killed, requests=None if stand_in is None else stand_in.requests())
            )


@contextmanager
def _model_server(provider: Provider) -> Iterator[StandIn | None]:
    if provider is Provider.OPENAI:
        yield None
        return
    with stand_in_model() as stand_in:
        yield stand_in


@contextmanager
def _open_journal(stage: Stage) -> Iterator[Connection]:
    database = find_database(stage.settings)
    schema.prepare(database)
    connection = database.connect()
    try:
        yield connection
    finally:
        connection.close()


# -- the acts


def _set_up(console: Console, stage: Stage, journal: Connection, stand_in: StandIn | None) -> None:
    """Start the workers and return when both are registered."""
    model = "the model of OpenAI" if stand_in is None else "a stand-in for the model, on this machine"
    console.print(
        Text(f"Starting two Celery workers, an embedded broker and database, and {model} …"), soft_wrap=True
    )
    for name in NAMES:
        stage.start_worker(name)
    wanted = {worker.pid for worker in stage.workers}
    _wait(lambda: wanted <= set(worker_pids(journal).values()), stage, seconds=SET_UP_SECONDS)
    pids = " and ".join(f"worker {worker.name} (pid {worker.pid})" for worker in stage.workers)
    console.print(Text(f"Ready: {pids}, started as 'celery -A polos worker'.\n"), soft_wrap=True)


def _perform(teller: Teller, stage: Stage, journal: Connection) -> tuple[Scene, Worker | None]:
    """Start the run, kill the worker that coordinates it at the right moment, and return how it ended."""
    run_id = asyncio.run(_start_run(stage))
    teller.say(f"run {run_id} of {AGENT_ID}: {QUESTION}")
    killed: Worker | None = None
    deadline = time.monotonic() + RUN_SECONDS
    while True:
        scene = look(journal, stage, run_id)
        teller.tell(scene)
        if scene.has_ended:
            return scene, killed
        if time.monotonic() > deadline:
            raise ServiceUnavailableError(f"The run did not end within {RUN_SECONDS:g} seconds")
        stage.check(but=killed)
        if killed is None:
            killed = _kill_at_the_right_moment(teller, stage, journal, scene)
        time.sleep(LOOK_EVERY_SECONDS)


async def _start_run(stage: Stage) -> str:
    settings = stage.settings.with_values(embedded_worker="0")
    project, deployment = settings.project_id, settings.deployment_id
    direct = DirectTransport(settings, project_id=project, deployment_id=deployment)
    async with PolosClient(project_id=project, settings=settings, transport=direct) as client:
        handle = await client.invoke(AGENT_ID, {"input": QUESTION, "streaming": False, "provider_kwargs": {}})
        return handle.id


def _kill_at_the_right_moment(
    teller: Teller, stage: Stage, journal: Connection, scene: Scene
) -> Worker | None:
    """Kill the worker that owns the run if some tools are done and it is in the middle of others.

    It is held still while we make sure: a tool that finishes between the look and the kill, before its
    outcome is on record, would rightly run again.
    """
    victim = stage.worker_of(scene.owner_pid)
    if victim is None or not scene.is_moment_to_kill(victim.pid) or not victim.freeze():
        return None
    scene = look(journal, stage, scene.run["id"])
    if scene.owner_pid != victim.pid or not scene.is_moment_to_kill(victim.pid):
        victim.thaw()
        return None
    victim.kill()
    teller.tell(scene)
    teller.tell_kill(victim, scene)
    return victim


def _answer(scene: Scene) -> str:
    if scene.run["status"] != "completed":
        return f"The run is {scene.run['status']}: {scene.run['error']}"
    return f"Answer: {scene.answers[-1]['content']}"


def _wait(condition: Callable[[], bool], stage: Stage, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        stage.check()
        if time.monotonic() > deadline:
            raise ServiceUnavailableError(f"The workers were not ready within {seconds:g} seconds")
        time.sleep(LOOK_EVERY_SECONDS)
