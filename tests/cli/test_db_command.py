from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import polos
from polos.cli.main import app
from polos.journal import schema


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLOS_HOME", str(tmp_path / ".polos"))
    for name in ("POLOS_DATABASE_URL", "POLOS_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_version_is_that_of_the_package() -> None:
    assert run("version").output.strip() == polos.__version__


def test_check_of_a_database_that_was_upgraded_passes() -> None:
    assert run("db", "upgrade").exit_code == 0
    checked = run("db", "check")
    assert (checked.exit_code, schema.HEAD in checked.output) == (0, True)


def test_upgrade_again_changes_nothing() -> None:
    assert "created" in run("db", "upgrade").output
    again = run("db", "upgrade")
    assert (again.exit_code, "up to date" in again.output) == (0, True)


def test_check_of_a_missing_schema_says_how_to_make_it_and_makes_nothing(folder: Path) -> None:
    checked = run("db", "check")
    assert checked.exit_code == 2
    assert "polos db upgrade" in checked.output
    assert list(folder.iterdir()) == []


def test_check_of_an_older_schema_says_how_to_move_it_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    run("db", "upgrade")
    monkeypatch.setattr(schema, "HEAD", "9999")
    checked = run("db", "check")
    assert checked.exit_code == 2
    assert "older" in checked.output
    assert "polos db upgrade" in checked.output


def test_check_of_a_newer_schema_asks_for_a_newer_polos(folder: Path) -> None:
    run("db", "upgrade")
    with closing(sqlite3.connect(folder / ".polos" / "polos.db")) as connection, connection:
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999', oldest_beside = '9999'")
    for command in ("check", "upgrade"):
        refused = run("db", command)
        assert refused.exit_code == 2
        assert "newer" in refused.output


def test_url_of_the_environment_comes_before_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLOS_DATABASE_URL", f"sqlite:///{folder}/elsewhere.db")
    assert run("db", "upgrade").exit_code == 0
    assert {path.name for path in folder.iterdir() if path.suffix in {"", ".db"}} == {"elsewhere.db"}


def test_unreachable_database_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLOS_DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:1/runs")
    checked = run("db", "check")
    assert checked.exit_code == 2
    assert "postgresql://me:***@127.0.0.1:1/runs" in checked.output
    assert "hunter2" not in checked.output
