"""`Worker`: serves in the foreground what a program lists, for programs with a file for workers alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from polos.agents.agent import Agent
from polos.client import PolosClient
from polos.program import Polos, log_to, refuse_channels
from polos.registry import register
from polos.settings import Settings
from polos.tools.tool import Tool
from polos.workflows import Workflow

logger = logging.getLogger(__name__)

WorkflowT = TypeVar("WorkflowT", bound=Workflow)


class Worker:
    """A worker of this process, started by hand: ``await Worker(client, "v1", agents=[…]).run()``.

    It serves what is listed, and whatever else this process defines. `polos worker` and `celery -A polos
    worker` do the same with the pools of Celery, and are what to start in production.

    Args:
        client: Whose project, database and broker it serves.
        deployment_id: Version of the code; POLOS_DEPLOYMENT_ID.
        agents: Agents to serve; what is listed here counts even if the same id was defined anew since.
        tools: Tools to serve.
        workflows: Workflows to serve.
        max_concurrent_workflows: What executes at once; POLOS_MAX_CONCURRENT_WORKFLOWS, else 100.
        mode: ``push``.
        worker_server_url: Accepted for programs that pass it; the worker needs no HTTP endpoint.
        log_file: All logging goes there, in append mode.
        channels: Must be empty: channels are not supported by this version.

    Raises:
        ValueError: There is no deployment id, or the mode is another one.
        ConfigurationError: The client's API is not on this machine: a worker needs database and broker.
    """

    def __init__(
        self,
        client: PolosClient,
        deployment_id: str | None = None,
        agents: list[Agent] | None = None,
        tools: list[Tool] | None = None,
        workflows: list[Workflow] | None = None,
        max_concurrent_workflows: int | None = None,
        mode: str = "push",
        worker_server_url: str | None = None,
        log_file: str | None = None,
        channels: list[Any] | None = None,
    ) -> None:
        _check_mode(mode)
        refuse_channels(channels)
        self.client = client
        self.deployment_id = _deployment(deployment_id, client)
        self.worker_server_url = worker_server_url
        self.agents = _of_kind(Agent, agents)
        self.tools = _of_kind(Tool, tools)
        self.workflows = _of_kind(Workflow, workflows)
        self._log_file = log_file
        self._polos = Polos(
            client.project_id,
            client.api_url,
            client.api_key,
            self.deployment_id,
            max_concurrent_workflows=max_concurrent_workflows,
            settings=client.settings,
        )

    @property
    def settings(self) -> Settings:
        """What it serves with."""
        return self._polos.settings

    async def run(self) -> None:
        """Serve until SIGINT, SIGTERM or `shutdown()`; unfinished runs are handed back."""
        if self._log_file is not None:
            log_to(Path(self._log_file))
        for definition in (*self.agents, *self.tools, *self.workflows):
            register(definition)
        await self._polos.serve()

    async def shutdown(self) -> None:
        """Hand unfinished runs back and end `run`. Harmless when it does not serve."""
        await self._polos.stop()


def _check_mode(mode: str) -> None:
    if mode == "pull":
        raise ValueError(
            "mode 'pull' is not supported; leave mode out: workers take their work from the broker"
        )
    if mode != "push":
        raise ValueError(f"mode {mode!r} is unknown; leave it out, or give 'push'")


def _deployment(given: str | None, client: PolosClient) -> str:
    found = given or client.deployment_id or os.environ.get("POLOS_DEPLOYMENT_ID")
    if not found:
        raise ValueError("a worker needs a deployment: give deployment_id, or set POLOS_DEPLOYMENT_ID")
    return found


def _of_kind(kind: type[WorkflowT], listed: Iterable[Any] | None) -> list[WorkflowT]:
    """Return those of this kind; others are left out, as programs expect, and not in silence."""
    kept = []
    for one in listed or ():
        if isinstance(one, kind):
            kept.append(one)
        else:
            logger.warning("%r is no %s: the worker leaves it out", one, kind.__name__.lower())
    return kept
