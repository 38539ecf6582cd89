"""JSON that is made to break its reader: each kind has a limit, and an error that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cli.written import Written, polos, without_settings
from hypothesis import given
from hypothesis import strategies as st
from server.stand import API, stand
from services import sqlite_url

from polos import serialization
from polos.errors import SerializationError
from polos.forms import form_of
from polos.journal.database import Database
from polos.models.messages import chat_messages
from polos.serialization import MAX_DEPTH, dumps, is_too_deep, parse
from polos.server.forms import WHOLE, answer_of
from polos.settings import Settings


def nested(levels: int, *, of: str = "[]") -> str:
    if of == "[]":
        return "[" * levels + "]" * levels
    return '{"a":' * levels + "1" + "}" * levels


BOMBS = {
    "lists beyond the limit": nested(MAX_DEPTH + 1),
    "objects beyond the limit": nested(MAX_DEPTH + 1, of="{}"),
    "lists beyond the stack": nested(100_000),
    "objects beyond the stack": nested(100_000, of="{}"),
    "lists that are not closed": "[" * 100_000,
    "NaN": "[NaN]",
    "infinity": "[-Infinity]",
    "a number of 5,000 digits": "1" * 5000,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_by_what_reads_texts_of_others(bomb: str) -> None:
    with pytest.raises(ValueError, match=r"nested deeper|no JSON number|digits|Expecting"):
        parse(bomb)


def test_the_limit_of_depth_is_exact_and_strings_do_not_count() -> None:
    assert parse(nested(MAX_DEPTH))
    assert parse(json.dumps(["[{" * 1000 + '\\"']))
    assert not is_too_deep(json.dumps(["[" * 1000, {"]": "\\\\"}]))
    assert is_too_deep(json.dumps("]" * 1000)[:-1] + '"' + nested(MAX_DEPTH + 1))


@given(st.recursive(st.text('[]{}"\\', max_size=5), lambda inner: st.lists(inner, max_size=4), max_leaves=30))
def test_depth_is_what_it_is(value: object) -> None:
    def depth(found: object) -> int:
        return 1 + max(map(depth, found), default=0) if isinstance(found, list) else 0

    for base in (0, MAX_DEPTH - 3, MAX_DEPTH):
        text = "[" * base + json.dumps(value) + "]" * base
        assert is_too_deep(text) == (base + depth(value) > MAX_DEPTH)


def test_of_equal_keys_the_last_one_counts() -> None:
    assert parse('{"a": 1, "a": 2}') == {"a": 2}


def test_what_is_stored_may_not_be_nested_deeper_than_what_is_read() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert serialization.loads(dumps(value, limit_bytes=10_000)) == value
    with pytest.raises(SerializationError, match=f"result of step 'x': .*{MAX_DEPTH} levels"):
        dumps([value], limit_bytes=10_000, what="result of step 'x'")


# -- over HTTP


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[httpx.Client]:
    settings = Settings(
        database_url=sqlite_url(tmp_path_factory.mktemp("bombs")),
        broker_url=f"{valkey_url}/12",
        redis_prefix="bombs:",
    )
    with stand(settings) as server:
        yield server.client(server.key("shop"))


PLACES = {
    "a payload": ("POST", "workflows/flow/run", '{"payload": %s}'),
    "a state": ("POST", "workflows/flow/run", '{"initial_state": %s}'),
    "a batch": ("POST", "workflows/batch_run", '{"workflows": [{"workflow_id": "flow", "payload": %s}]}'),
    "an event": ("POST", "events/publish", '{"topic": "news", "events": [{"data": {"x": %s}}]}'),
    "an answer": ("POST", "executions/{run}/resume", '{"step_key": "ask", "data": {"x": %s}}'),
    "a submitted answer": ("POST", "approvals/{run}/ask/submit", '{"data": {"x": %s}}'),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("bomb", [*BOMBS.values(), "1e999"], ids=[*BOMBS, "1e999"])
def test_a_bomb_over_http_is_a_bad_request(
    shop: httpx.Client, place: tuple[str, str, str], bomb: str
) -> None:
    method, path, body = place
    run = shop.post(f"{API}/workflows/flow/run", json={}).json()["execution_id"]
    answer = shop.request(
        method,
        f"{API}/{path.format(run=run)}",
        content=body.replace("%s", bomb),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]


def test_the_deepest_value_that_is_taken_can_be_read(shop: httpx.Client) -> None:
    body = f'{{"payload": {nested(MAX_DEPTH)}}}'
    headers = {"Content-Type": "application/json"}
    run = shop.post(f"{API}/workflows/flow/run", content=body, headers=headers).json()["execution_id"]
    assert shop.get(f"{API}/executions/{run}").status_code == 200
    assert shop.get(f"{API}/workflows/runs").status_code == 200


# -- from people and models


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_in_the_form_of_the_page_is_told(bomb: str) -> None:
    answer, problems = answer_of(form_of({}, "ask"), {WHOLE: bomb})
    assert answer == {}
    assert "This is no JSON" in problems[WHOLE]


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_on_the_command_line_is_told(
    bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    database = Database(sqlite_url(tmp_path))
    monkeypatch.setenv("POLOS_DATABASE_URL", str(database.url))
    written = Written(database)
    run_id = written.ended(written.run())
    written.close()
    for arguments in (
        ("runs", "fork", run_id, "--from-step", "x", "--input", bomb),
        ("runs", "fork", run_id, "--from-step", "x", "--patch", f"x={bomb}"),
        ("approvals", "answer", run_id, "ask", "--data", bomb),
    ):
        result = polos(*arguments)
        assert result.exit_code == 2, (arguments[:2], result.output, result.exception)
        assert "Traceback" not in result.output


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_in_a_models_tool_call_goes_back_to_it_as_text(bomb: str) -> None:
    """Providers read the calls of a conversation, and refuse all of it for one that is malformed."""
    call = {"type": "function_call", "call_id": "c1", "name": "pay", "arguments": bomb}
    messages = chat_messages([call])
    [wrapped] = [one["tool_calls"][0]["function"]["arguments"] for one in messages if one.get("tool_calls")]
    assert json.loads(wrapped) == {"INVALID_JSON": bomb}
