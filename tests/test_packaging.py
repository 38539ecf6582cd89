"""What is shipped: wheel and source distribution hold what they must, and the wheel works installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scripts import Folder

import polos

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "polos"
PROGRAM = """
import asyncio

import polos
from polos import Polos, WorkflowContext, workflow


@workflow
async def double(ctx: WorkflowContext, payload: dict[str, int]) -> int:
    return int(await ctx.step.run("double", lambda: payload["n"] * 2))


async def main():
    async with Polos() as client:
        print(polos.__file__, await double.run(client, {"n": 21}))


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both distributions; the wheel is built from the source distribution."""
    pytest.importorskip("build", reason="the package build is not installed")
    pytest.importorskip("hatchling", reason="the package hatchling is not installed")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def in_wheel(built: Path) -> set[str]:
    [wheel] = built.glob("polos-*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def in_source(built: Path) -> set[str]:
    [source] = built.glob("polos-*.tar.gz")
    with tarfile.open(source) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@dataclass(frozen=True)
class Installed:
    """A virtual environment of its own with the wheel, and a folder to run programs in."""

    scripts: Path
    folder: Folder

    def run(self, *command: str) -> str:
        name, *arguments = command
        return self.folder.command(str(self.scripts / name), *arguments).ends(seconds=90).strip()


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The dependencies are those of these tests, by a path file: to install them takes minutes."""
    place = tmp_path_factory.mktemp("venv")
    [wheel] = built.glob("polos-*.whl")
    for command in (
        ["-m", "venv", "--without-pip", str(place)],
        ["-m", "pip", "--python", str(place), "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
    ):
        subprocess.run([sys.executable, *command], check=True, capture_output=True, timeout=120)
    paths = {scheme: Path(path) for scheme, path in _paths_of(place).items()}
    (paths["purelib"] / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    with Folder.new(
        {"PYTHONPATH": "", "PATH": f"{paths['scripts']}{os.pathsep}{os.environ['PATH']}"}
    ) as folder:
        yield Installed(paths["scripts"], folder)


def _paths_of(place: Path) -> dict[str, str]:
    return sysconfig.get_paths("venv", {"base": str(place), "platbase": str(place)})


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(in_wheel: set[str]) -> None:
    kept = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {name for name in in_wheel if ".dist-info/" not in name} == {
        path.relative_to(ROOT).as_posix() for path in kept
    }


def test_the_wheel_holds_types_and_migrations(in_wheel: set[str]) -> None:
    assert "polos/py.typed" in in_wheel
    assert {name for name in in_wheel if name.startswith("polos/journal/migrations/versions/")}


def test_the_source_distribution_can_be_built_tested_and_read(in_source: set[str]) -> None:
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/test_packaging.py"} <= in_source


def test_the_source_distribution_holds_no_data_of_programs_run_in_the_checkout(in_source: set[str]) -> None:
    strange = {".polos", ".venv", ".env", "__pycache__", ".git", ".mypy_cache"}
    assert not [
        name for name in in_source if strange & set(name.split("/")) or name.endswith((".db", ".pyc"))
    ]


def test_the_installed_command_tells_its_version(installed: Installed) -> None:
    assert installed.run("polos", "version") == polos.__version__


def test_celery_finds_the_installed_app(installed: Installed) -> None:
    report = installed.run("python", "-m", "celery", "-A", "polos", "report")
    assert "polos.worker.pool:AsyncioPool" in report


def test_a_program_runs_from_the_wheel_alone(installed: Installed) -> None:
    (installed.folder.path / "program.py").write_text(PROGRAM)
    *_, last = installed.run("python", "program.py").splitlines()
    where, result = last.split()
    assert Path(where).is_relative_to(installed.scripts.parent)
    assert result == "42"
