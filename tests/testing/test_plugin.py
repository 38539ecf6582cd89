"""The pytest plugin in projects of its users: what its fixtures give, and what others pay for it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

# What the projects load stays loaded: pytester drops what they are the first to import.
import polos.testing.memory_runtime
import polos.testing.questions
import polos.tools.tool  # noqa: F401

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(120)

AGENT = """
import asyncio
import pytest
from pydantic import BaseModel
from polos import Agent, WorkflowContext, tool
from polos.testing import allow_model_requests, approve, error, tool_call

class File(BaseModel):
    path: str

@tool(description="Delete a file", approval="always")
async def delete_file(ctx: WorkflowContext, file: File) -> str:
    return f"deleted {file.path}"

agent = Agent(id="files", provider="openai", model="gpt-4o", tools=[delete_file])
"""

FIXTURES = (
    AGENT
    + '''
async def test_async(polos_client, scripted_model):
    scripted_model.add(tool_call("delete_file", path="/tmp/x"), "It is gone.")
    run = await polos_client.invoke("files", {"input": "Delete it."})
    asked = await approve(polos_client, run)
    assert asked.data["_form"]["context"]["input"] == {"path": "/tmp/x"}
    assert (await polos_client.wait(run.id, timeout_seconds=30))["result"]["result"] == "It is gone."

def test_sync(polos_client, scripted_model, polos_clock):
    scripted_model.add(error(429, retry_after_seconds=600), "Hello.")
    run = polos_client.sync.invoke("files", {"input": "Hi"})
    polos_clock.sync.advance(minutes=11)
    assert polos_client.sync.wait(run.id)["result"]["result"] == "Hello."

async def test_left_in_the_middle(polos_client, scripted_model):
    """What is under way at the end of a test ends with it, without a word."""
    scripted_model.add(tool_call("delete_file", path="/tmp/x"), lambda request: asyncio.Event().wait())
    run = await polos_client.invoke("files", {"input": "Delete it."})
    await approve(polos_client, run)

def test_unused(polos_client):
    pass

@pytest.fixture
def polos_settings():
    return {"max_agent_steps": 3}

async def test_settings(polos_client, scripted_model):
    scripted_model.add("Hello.")
    assert polos_client.settings.max_agent_steps == 3
    assert (await agent.run(polos_client, "Hi")).result == "Hello."
'''
)

ANYIO = (
    AGENT
    + """
@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_it(polos_client, scripted_model):
    scripted_model.add("Hello.")
    assert (await agent.run(polos_client, "Hi")).result == "Hello."
"""
)

GUARDS = """
import pytest
from polos.errors import ModelRequestForbiddenError
from polos.models.permission import check_allowed
from polos.testing import allow_model_requests

def test_all_tests_are_guarded():
    check_allowed("openai", "gpt-4o", "http://localhost:4000/v1")
    with pytest.raises(ModelRequestForbiddenError):
        check_allowed("openai", "gpt-4o", None)
    with allow_model_requests():
        check_allowed("openai", "gpt-4o", None)

def test_and_the_fixture_says_the_same(no_model_requests):
    check_allowed("openai", "gpt-4o", "http://localhost:4000/v1")
"""

STRANGER = """
import sys

def test_that_has_nothing_to_do_with_it():
    roots = {name.partition(".")[0] for name in sys.modules}
    assert roots & {"celery", "litellm", "pydantic", "sqlalchemy"} == set()
    assert "polos.client" not in sys.modules
"""
ASYNC = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
OPTIONS = ("-W", "error", "-p", "no:cacheprovider", "-p", "polos.testing.plugin")


@pytest.mark.parametrize(
    ("test", "passed", "options"),
    [
        pytest.param(FIXTURES, 5, ASYNC, id="pytest-asyncio"),
        pytest.param(ANYIO, 1, ("-p", "no:asyncio"), id="anyio"),
        pytest.param(GUARDS, 2, ("-p", "no:asyncio", "-o", "polos_model_requests=local"), id="guards"),
    ],
)
def test_a_project(pytester: pytest.Pytester, test: str, passed: int, options: tuple[str, ...]) -> None:
    pytester.makepyfile(test)
    ended = pytester.runpytest_inprocess(*OPTIONS, *options)

    ended.assert_outcomes(passed=passed)
    ended.stdout.no_fnmatch_line("*Traceback*")
    ended.stderr.no_fnmatch_line("*Traceback*")


def test_a_setting_that_is_none_is_refused(pytester: pytest.Pytester) -> None:
    ended = pytester.runpytest_inprocess(*OPTIONS, "-p", "no:asyncio", "-o", "polos_model_requests=never")

    assert ended.ret is pytest.ExitCode.USAGE_ERROR
    ended.stderr.fnmatch_lines(["*polos_model_requests = 'never' cannot be used: write 'forbid'*"])


def test_a_project_without_agents_loads_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(STRANGER)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", *OPTIONS]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_package_says_where_the_plugin_is() -> None:
    """By the name of its module, so that naming it on the command line does not load it twice."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["entry-points"]["pytest11"] == {"polos.testing.plugin": "polos.testing.plugin"}
