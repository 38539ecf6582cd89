"""Secrets are planted everywhere, errors of every kind provoked, and all that was written is searched."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from cli.written import polos, without_settings
from crowd import Crowd, crowd_in, wait_until
from sealed import raw_rows
from server.stand import stand
from services import Postgres, sqlite_url
from sqlalchemy import make_url

from polos.approval_links import ApprovalRight
from polos.connections import broker_at
from polos.encryption import new_key
from polos.errors import ConfigurationError, ServiceUnavailableError
from polos.journal.database import Database
from polos.logs import JsonFormatter
from polos.models.failures import Call
from polos.models.providers import Endpoint
from polos.redacting import redacted
from polos.settings import Settings
from polos.streaming.server import RedisServer

CANARY = "canary9f2c"  # of every secret here, and of nothing else
PASSWORD = f"{CANARY}password"
APPROVALS = f"{CANARY}approvals"
PROVIDER_KEY = f"sk-{CANARY}0123456789"
KEYS = "k1:" + base64.b64encode(f"{CANARY:_<32}".encode()).decode()
ENCODED = KEYS.partition(":")[2]


def is_clean(text: str) -> bool:
    return CANARY not in text and ENCODED not in text


# -- texts


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://u:p@host/db", "postgresql://u:***@host/db"),
        ("redis://:p@ss/w@h:1/0 is away", "redis://:***@h:1/0 is away"),
        ("GET /approve/x?token=abc&y=1", "GET /approve/x?token=***&y=1"),
        ("https://host/v1?key=AIza&alt=json", "https://host/v1?key=***&alt=json"),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer ***"),
        ("the key sk_" + "a" * 32, "the key sk_***"),
        ("https://host:8080/@scope/x", "https://host:8080/@scope/x"),
        ("mail ada@example.com: 5 tokens", "mail ada@example.com: 5 tokens"),
        ("a bearer of news", "a bearer of news"),
    ],
)
def test_what_is_a_secret_by_its_form_is_hidden(text: str, clean: str) -> None:
    assert redacted(text) == clean
    assert redacted(clean) == clean


def test_a_json_log_line_stays_json() -> None:
    record = logging.LogRecord("x", 20, "f", 1, 'GET "/a?token=%s\\" b', (CANARY,), None)
    line = JsonFormatter().format(record)
    assert json.loads(line)["message"].startswith('GET "/a?token=***')
    assert is_clean(line)


def test_what_is_shown_of_settings_and_servers_has_no_secret() -> None:
    settings = Settings(
        database_url=f"postgresql://u:{PASSWORD}@h/d",
        broker_url=f"redis://:{PASSWORD}@h/0",
        redis_url=f"redis://:{PASSWORD}@h/1",
        approval_secret=APPROVALS,
        encryption_keys=KEYS,
    )
    shown = [
        settings,
        broker_at(settings.broker_url, setting="x"),
        broker_at(f"amqp://u:{PASSWORD}@h//", setting="x"),
        RedisServer.from_url(settings.redis_url),
        Database(settings.database_url),
        Endpoint(api_key=PROVIDER_KEY),
        Call(provider="openai", model="m", secrets=(PROVIDER_KEY,)),
    ]
    for each in shown:
        assert is_clean(f"{each!r} {each}"), type(each)


def test_every_secret_setting_is_left_out_when_settings_are_shown() -> None:
    """Those that are added, too: by their names."""
    for name, spec in Settings.__dataclass_fields__.items():
        holds_one = re.search(r"(_url|secret|password|token|_keys?)$", name) and name != "public_url"
        assert spec.repr != bool(holds_one), name


# -- commands that fail


SERVICES = {
    "a database that is away": {"POLOS_DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:1/d"},
    "a database of no kind": {"POLOS_DATABASE_URL": f"oracle://u:{PASSWORD}@h/d"},
    "no URL of a database": {"POLOS_DATABASE_URL": f"u:{PASSWORD}@h/d"},
    "options no database has": {"POLOS_DATABASE_URL": f"postgresql://h/d?passwod=x&password={PASSWORD}"},
    "a broker that is away": {"POLOS_BROKER_URL": f"redis://u:{PASSWORD}@127.0.0.1:1/0"},
    "a broker of no kind": {"POLOS_BROKER_URL": f"sqs://u:{PASSWORD}@h"},
    "a port that is none": {"POLOS_BROKER_URL": f"redis://u:{PASSWORD}@h:port/0"},
    "a RabbitMQ that is away": {
        "POLOS_BROKER_URL": f"amqp://u:{PASSWORD}@127.0.0.1:1//",
        "POLOS_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:1/0",
    },
    "a key that is none": {"POLOS_ENCRYPTION_KEYS": KEYS + CANARY},
    "a key of another size": {"POLOS_ENCRYPTION_KEYS": f"k1:{base64.b64encode(CANARY.encode()).decode()}"},
}
COMMANDS = (("doctor",), ("runs",), ("worker", "json"))


@pytest.mark.parametrize("environment", SERVICES.values(), ids=SERVICES.keys())
def test_no_command_tells_a_secret(
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    without_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    given = {
        "POLOS_DATABASE_URL": sqlite_url(tmp_path),
        "POLOS_BROKER_URL": f"redis://:{PASSWORD}@127.0.0.1:1/0",
        "POLOS_APPROVAL_SECRET": APPROVALS,
        "OPENAI_API_KEY": PROVIDER_KEY,
        **environment,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for command in COMMANDS:
        result = polos(*command)
        assert is_clean(result.output), (command, result.output)
        assert is_clean(caplog.text), command
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception


def test_servers_that_refuse_a_password_are_told_without_it(
    valkey_url: str, postgres_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    url = make_url(postgres_server.create_database())
    monkeypatch.setenv("POLOS_DATABASE_URL", sqlite_url(tmp_path))
    monkeypatch.setenv("POLOS_BROKER_URL", valkey_url.replace("redis://", f"redis://nobody:{PASSWORD}@"))
    output = polos("doctor").output
    assert "WRONGPASS" in output or "password" in output
    assert is_clean(output)
    with pytest.raises((ServiceUnavailableError, ConfigurationError)) as refused:
        Database(
            url.set(username="nobody", password=PASSWORD).render_as_string(hide_password=False)
        ).connect()
    assert is_clean(str(refused.value))


# -- a worker, and all it writes


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[Crowd]:
    """A worker whose settings are full of secrets, on a broker with a password."""
    with redis.Redis.from_url(f"{valkey_url}/13") as admin:
        admin.execute_command("ACL", "SETUSER", "polos", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    secrets = {
        "POLOS_BROKER_URL": f"{valkey_url}/13".replace("redis://", f"redis://polos:{PASSWORD}@"),
        "POLOS_APPROVAL_SECRET": APPROVALS,
        "ANTHROPIC_API_KEY": PROVIDER_KEY,
        "POLOS_LOG_FORMAT": "json",
    }
    with crowd_in(tmp_path_factory.mktemp("told"), valkey_url, **secrets) as crowd:
        yield crowd


def test_what_code_raises_is_kept_and_logged_without_passwords(told: Crowd) -> None:
    """The URL of a server in the text of an exception is how passwords usually get into logs."""
    events = told.broker.pubsub()
    events.psubscribe("*")
    wait_until(lambda: events.get_message(timeout=1))
    texts = [
        told.environment["POLOS_BROKER_URL"] + " does not answer",
        f"postgresql://u:{PASSWORD}@h/d: no such table",
        f"401 of https://h/v1?api_key={CANARY}, sent Authorization: Bearer {CANARY}12345",
    ]
    for text in texts:
        for place in ("body", "step", "logged"):
            run_id = told.client.invoke("raises", {"text": text, "place": place}).id
            wait_until(lambda run_id=run_id: told.run(run_id)["finished_at"])
            run = told.run(run_id)
            assert run["error"] is None or is_clean(run["error"])
            assert run["status"] == ("completed" if place == "logged" else "failed")
    payloads = []
    while message := events.get_message(timeout=0.5):
        payloads.append(_decoded(message.get("data")))
    assert any("task-" in each for each in payloads), "no events of Celery's, which Flower shows"
    # The input is the user's own, and stays as it is; an error is not.
    rows = raw_rows(Database(told.environment["POLOS_DATABASE_URL"]))
    assert [row for row in rows if row[1] in {"error", "failures"}]
    assert [row for row in rows if row[1] not in {"input", "initial_state"} and not is_clean(row[2])] == []
    assert is_clean(told.log)
    assert [each for each in payloads if not is_clean(each)] == []


def _decoded(data: object) -> str:
    text = data.decode(errors="replace") if isinstance(data, bytes) else str(data)
    bodies = re.findall(r'"body": ?"([A-Za-z0-9+/=]+)"', text)
    return text + "".join(base64.b64decode(body).decode(errors="replace") for body in bodies)


# -- links, keys and the server


def test_keys_and_links_are_in_no_log_of_the_server(
    tmp_path: Path, valkey_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = Settings(
        database_url=sqlite_url(tmp_path),
        broker_url=f"{valkey_url}/12",
        approval_secret=APPROVALS,
        redis_prefix="secrets:",
    )
    with stand(settings) as server:
        secret = server.key("shop")
        token = ApprovalRight("shop", "x", "ask", 2**40).token(APPROVALS)
        client = server.client(secret)
        answers = [
            client.get("/api/v1/executions/x"),
            client.get("/api/v1/approvals/x/ask", params={"token": token}),
            client.get("/api/v1/approvals/x/ask", params={"token": token + "x"}),
            client.get("/approve/x/ask", params={"token": token[:-1]}),
            client.post("/api/v1/workflows/f/run", content="{", headers={"Content-Type": "application/json"}),
            server.client(f"{secret}x").get("/api/v1/projects"),
        ]
    for answer in answers:
        assert secret not in answer.text
        assert APPROVALS not in answer.text
        assert token[-20:] not in answer.text
    theirs = ("httpx", "httpcore")  # of the client here
    ours = "\n".join(one.getMessage() for one in caplog.records if not one.name.startswith(theirs))
    assert secret not in ours
    assert token not in ours
    assert APPROVALS not in ours


@pytest.mark.parametrize("change", ["project", "root_id", "step_key", "expires_at"])
def test_a_link_is_for_one_question_until_it_expires(tmp_path: Path, valkey_url: str, change: str) -> None:
    settings = Settings(
        database_url=sqlite_url(tmp_path), broker_url=f"{valkey_url}/12", approval_secret=APPROVALS
    )
    right = {"project": "shop", "root_id": "x", "step_key": "ask", "expires_at": 2.0**40}
    other = {"project": "another", "root_id": "y", "step_key": "other", "expires_at": 1.0}
    with stand(settings) as server:
        client = server.client()
        token = ApprovalRight(**right).token(APPROVALS)  # type: ignore[arg-type]

        def ask(token: str) -> httpx.Response:
            return client.get("/api/v1/approvals/x/ask", params={"token": token})

        assert ask(token).status_code == 404  # let in, and there is no such question
        changed = ApprovalRight(**{**right, change: other[change]})  # type: ignore[arg-type]
        expected = {"project": 404, "root_id": 403, "step_key": 403, "expires_at": 401}[change]
        assert ask(changed.token(APPROVALS)).status_code == expected
        payload, signature = changed.token("another secret").split(".")
        assert ask(f"{payload}.{signature}").status_code == 401
        assert ask(f"{payload}.{token.split('.')[1]}").status_code == 401
        for path in ("projects", "executions/x", "approvals", "approvals/x/ask/../../../projects"):
            assert client.get(f"/api/v1/{path}", params={"token": token}).status_code in {401, 403}
    assert new_key("k1") != new_key("k1")
