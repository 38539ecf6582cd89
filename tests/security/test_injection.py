"""Texts that the HTTP API and the command line take are values, never SQL, paths, headers or templates.

Walks the OpenAPI document and the commands, so that what is added is tried too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from cli.written import Written, without_settings
from sealed import raw_rows
from server.stand import Stand, stand
from services import sqlite_url
from typer.testing import CliRunner

from polos.cli.main import app
from polos.journal.database import Database
from polos.server import create_app
from polos.settings import Settings

EVIL = (
    "'; DROP TABLE run; --",
    '" OR "1"="1',
    "x' UNION SELECT digest FROM api_key --",
    "%' OR project LIKE '%",
    "../../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "/etc/passwd",
    "{{7*7}}${7*7}{0.__class__}",
    "<script>alert(1)</script>",
    "\r\nSet-Cookie: a=b\r\n\r\n<html>",
    "\n\nevent: forged\ndata: {}\n\n",
    "$(touch pwned)`touch pwned`|touch pwned;touch pwned",
    "--help",
    "%s%n%(x)s",
)
TYPED = (EVIL[0], EVIL[2], EVIL[4], EVIL[11])  # a command takes as long as ten requests
TARGETS = ("root:x:0:0", "pwned")

DOCUMENT = create_app(Settings()).openapi()
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    if not path.endswith("/events/stream")
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(sqlite_url(tmp_path_factory.mktemp("injection")))


@pytest.fixture(scope="module")
def server(database: Database, valkey_url: str) -> Iterator[Stand]:
    settings = Settings(
        database_url=str(database.url), broker_url=f"{valkey_url}/14", redis_prefix="injection:"
    )
    with stand(settings) as running:
        yield running


@pytest.fixture(scope="module")
def kept(database: Database) -> Iterator[str]:
    """A run of another project, that nothing may show or change."""
    written = Written(database)
    yield written.run("the-run-of-another", project="another", input='"the-input-of-another"')
    written.close()


@pytest.fixture(scope="module")
def admin(server: Stand) -> httpx.Client:
    return server.client(server.key("shop", admin=True))


def _schema(given: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in given:
        return _schema(DOCUMENT["components"]["schemas"][given["$ref"].rpartition("/")[2]])
    for word in ("anyOf", "allOf", "oneOf"):
        if word in given:
            options = [_schema(option) for option in given[word]]
            return next((one for one in options if one.get("type") != "null"), options[0])
    return given


def _value(given: dict[str, Any], evil: str) -> Any:
    """Return a value that fits a schema, with `evil` for every text in it."""
    schema = _schema(given)
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("format") == "date-time":
        return "2025-03-01T12:00:00Z"
    match schema.get("type"):
        case "object" if "properties" in schema:
            return {
                name: _value(each, evil)
                for name, each in schema["properties"].items()
                if _schema(each).get("type") != "null"
            }
        case "object" | None:
            return {evil: evil}
        case "array":
            return [_value(schema.get("items", {}), evil)]
        case "integer" | "number":
            return max(schema.get("minimum", 1), 1)
        case "boolean":
            return False
        case _:
            return evil


def _call(
    client: httpx.Client, method: str, path: str, operation: dict[str, Any], evil: str
) -> httpx.Response:
    query: dict[str, Any] = {}
    headers: dict[str, str] = {}
    for parameter in operation.get("parameters", ()):
        value = _value(parameter["schema"], evil)
        if parameter["in"] == "path":
            text = httpx.URL("http://h/").copy_with(params={"x": str(value)}).query.decode()[2:]
            path = path.replace(f"{{{parameter['name']}}}", text.replace("+", "%20"))
        elif parameter["in"] == "query" and parameter["name"] != "project_id":
            query[parameter["name"]] = 0.01 if parameter["name"] == "wait" else value
        elif parameter["in"] == "header":
            headers[parameter["name"]] = str(value).replace("\r", "").replace("\n", "")
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    body = None if content is None else _value(content["schema"], evil)
    return client.request(method, path, params=query, headers=headers, json=body)


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=[f"{m} {p}" for m, p, _ in OPERATIONS]
)
def test_texts_over_http_are_values(
    admin: httpx.Client, database: Database, kept: str, method: str, path: str, operation: dict[str, Any]
) -> None:
    for evil in EVIL:
        answer = _call(admin, method, path, operation, evil)
        assert answer.status_code < 500 or path == "/ready", (evil, answer.text)
        assert "set-cookie" not in answer.headers, evil
        assert answer.status_code == 204 or answer.headers["content-type"] == "application/json"
        assert not any(target in answer.text.replace(evil, "") for target in TARGETS), evil
        assert "of-another" not in answer.text, evil
    rows = raw_rows(database)
    assert ("run", "id", kept) in rows
    assert ("run", "input", '"the-input-of-another"') in rows


def test_an_event_cannot_forge_another_in_a_stream(admin: httpx.Client) -> None:
    """By its type or its data: line ends end frames of server-sent events."""
    evil = "\n\nid: 99\nevent: forged\ndata: {}\r\r\u2028\n\n"
    for number in range(2):
        event = {"event_type": f"kind{evil}" if number == 0 else "next", "data": {evil: evil}}
        admin.post("/api/v1/events/publish", json={"topic": "sse", "events": [event]}).raise_for_status()
    query = {"topic": "sse", "last_sequence_id": 0}
    with admin.stream("GET", "/api/v1/events/stream", params=query) as stream:
        lines = []
        for line in stream.iter_lines():
            lines.append(line)
            if sum(each.startswith("data:") for each in lines) == 2:
                break
    assert [line for line in lines if line.startswith("id:")] == ["id: 1", "id: 2"]
    assert not any(line.startswith("event: forged") for line in lines)


def test_the_page_of_a_question_shows_texts_as_texts(server: Stand) -> None:
    answer = server.client().get("/approve/<script>alert(1)</script>/<img src=x onerror=alert(1)>")
    assert answer.status_code == 401
    assert "<script>alert" not in answer.text
    assert "<img" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"


# -- the command line

NOT_HERE = {  # they serve, or change the whole place; their texts are of the others' kinds
    "worker",
    "server",
    "flower",
    "demo",
}


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name, each in command.commands.items():
            if name not in NOT_HERE:
                yield from _commands(each, (*path, name))
        if getattr(command, "invoke_without_command", False):
            yield path, command
    else:
        yield path, command


COMMANDS = list(_commands(typer.main.get_command(app)))


def _arguments(command: Any, evil: str) -> list[str]:
    """Return every option and argument that takes a text, each with `evil`."""
    options: list[str] = []
    positional: list[str] = []
    for parameter in command.params:
        kind = repr(parameter.type_descriptor.annotation)
        if parameter.param_type_name == "argument":
            positional.append("none.jsonl" if "Path" in kind else evil)
        elif "str" in kind and "Path" not in kind:  # a path is where whoever types it may read and write
            options.append(f"{parameter.opts[0]}={evil}")
    return [*options, "--", *positional] if positional else options


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_texts_on_the_command_line_are_values(
    path: tuple[str, ...],
    command: Any,
    database: Database,
    kept: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_settings(monkeypatch)
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    monkeypatch.setenv("POLOS_DATABASE_URL", str(database.url))
    monkeypatch.setenv("POLOS_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("POLOS_PROJECT_ID", "shop")
    for evil in TYPED:
        result = CliRunner().invoke(app, [*path, *_arguments(command, evil)], input="n\n")
        assert result.exit_code in {0, 1, 2}, (evil, result.output)
        assert result.exception is None or isinstance(result.exception, SystemExit), (evil, result.exception)
        assert not any(target in result.output.replace(evil, "") for target in ("root:x:0:0",)), evil
        assert "the-input-of-another" not in result.output
    assert ("run", "id", kept) in raw_rows(database)
    assert not list(tmp_path.rglob("pwned"))
    assert os.listdir(tmp_path) == ["a"]
    assert os.listdir(tmp_path / "a") == ["b"]


def test_the_walks_have_found_what_there_is() -> None:
    assert len(OPERATIONS) > 30
    assert len(COMMANDS) > 25
