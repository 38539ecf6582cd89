"""What docs/testing.md shows runs: its own program here, the others as parts of examples/testing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ROOT, bare_environment, python_blocks

# What the tests load stays loaded: pytester drops what they are the first to import.
import polos.testing.memory_runtime
import polos.testing.questions
import polos.testing.samples
import polos.tools.tool  # noqa: F401
from polos import testing
from polos.testing import plugin

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.timeout(120)
PAGE = (ROOT / "docs" / "testing.md").read_text()
EXAMPLE = ROOT / "examples" / "testing"
BLOCKS = python_blocks(PAGE)
OPTIONS = ("-W", "error", "-p", "no:cacheprovider", "-p", "polos.testing.plugin", "-o", "asyncio_mode=auto")


def test_its_first_program_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_weather=BLOCKS[0])
    ended = pytester.runpytest_inprocess(*OPTIONS, "-o", "asyncio_default_fixture_loop_scope=function")

    ended.assert_outcomes(passed=1)


def test_the_tests_of_the_example_pass(pytester: pytest.Pytester) -> None:
    for file in EXAMPLE.glob("*.py"):
        shutil.copy(file, pytester.path)
    ended = pytester.runpytest_inprocess(*OPTIONS, "-o", "asyncio_default_fixture_loop_scope=function")

    written = len(
        re.findall(r"^(?:async )?def test_", (EXAMPLE / "test_refunds.py").read_text(), re.MULTILINE)
    )
    ended.assert_outcomes(passed=written)


def test_the_program_of_the_example_loads_no_litellm(tmp_path: Path) -> None:
    for file in EXAMPLE.glob("*.py"):
        shutil.copy(file, tmp_path)
    (tmp_path / "looks.py").write_text(
        "import runpy, sys\n"
        "runpy.run_path('conversation.py', run_name='__main__')\n"
        "assert 'litellm' not in sys.modules\n"
    )
    ended = subprocess.run(  # a process of its own: those of other tests have done their imports
        [sys.executable, "looks.py"],
        cwd=tmp_path,
        env=bare_environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=80,
    )
    assert ended.returncode == 0, ended.stderr
    printed = ended.stdout

    assert printed.splitlines()[0] == "call 1: {'role': 'user', 'content': 'My cup was broken.'}"
    assert printed.splitlines()[-1] == "You have 20 euros back."
    assert not (tmp_path / "home").exists(), "nothing is left on the disk"


# That of recorded runs needs some: tests/engine/test_replaying.py and tests/replay do what it shows.
@pytest.mark.parametrize("block", [block for block in BLOCKS[1:] if "await replay(" not in block])
def test_what_else_it_shows_is_of_the_example(block: str) -> None:
    assert any(block in file.read_text() for file in EXAMPLE.glob("*.py"))


@pytest.mark.parametrize(
    "name", [*testing.__all__, plugin.INI, "polos_client", "scripted_model", "polos_clock"]
)
def test_every_name_is_on_the_page(name: str) -> None:
    if name not in {
        "MemoryRuntime",
        "Question",
        "Replay",
        "ScriptedAnswer",
        "Verdict",
    }:  # what other names return
        assert re.search(rf"\b{name}\b", PAGE)
    if name in testing.__all__:
        assert getattr(testing, name).__doc__
