"""What a program loads that only defines and starts runs: no model library, no worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import ROOT
from sites import Site

pytestmark = pytest.mark.timeout(120)

HEAVY = {
    *("litellm", "openai", "celery", "kombu", "billiard", "sqlalchemy", "sqlmodel", "alembic", "psycopg"),
    *("redis", "uvloop", "greenlet", "typer", "rich", "fastapi", "uvicorn", "flower", "httpx", "mcp"),
}
DEFINES = """
from pydantic import BaseModel
from polos import (
    Agent, AgentContext, BatchWorkflowInput, Polos, PolosClient, WorkflowContext, WorkflowState,
    events, executed_tool, has_text, max_steps, max_tokens, queue, stop_condition, tool, workflow,
)

class City(BaseModel):
    name: str

@tool(description="The weather")
async def weather(ctx: WorkflowContext, input: City) -> City:
    return input

@workflow(queue=queue("some"))
async def plan(ctx: WorkflowContext, payload: City) -> City:
    return payload

agent = Agent(id="a", provider="openai", model="m", tools=[weather], stop_conditions=[has_text(texts=["x"])])
"""


def loaded(source: str, folder: Path, **environment: str) -> set[str]:
    """Return which heavy packages a program has loaded at its end."""
    report = f"\nimport sys\nprint(*sorted({HEAVY!r} & set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", source + report],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.split())


def test_definitions_and_a_client_load_no_library_of_any_server(tmp_path: Path) -> None:
    assert loaded(DEFINES + "client = PolosClient()\npolos = Polos()", tmp_path) == set()


def test_a_client_of_a_server_loads_an_http_client_and_nothing_else(site: Site) -> None:
    program = DEFINES + 'client = PolosClient()\nclient.sync.invoke("client-double", {"n": 1})'
    found = loaded(
        program,
        site.folder.path,
        **site.environment,
        POLOS_API_URL=site.url,
        POLOS_API_KEY=site.keys["default"],
    )
    assert found - {"rich"} == {"httpx"}  # which loads that where it is installed


def test_a_web_process_that_starts_runs_loads_no_model_library(site: Site) -> None:
    """Straight to journal and broker."""
    program = DEFINES + 'client = PolosClient()\nclient.sync.invoke("client-double", {"n": 1})'
    found = loaded(program, site.folder.path, **site.environment)

    assert {"celery", "sqlalchemy"} <= found
    assert not found & {"litellm", "openai", "typer", "rich", "fastapi", "uvicorn", "flower", "httpx", "mcp"}
