"""Whether the server says that it lives, and that it is ready."""

from __future__ import annotations

from pathlib import Path

from services import sqlite_url
from stand import API, Stand, stand, wait_until

from polos.settings import Settings

NOWHERE = "127.0.0.1:1"


def reasons(server: Stand) -> list[str]:
    answer = server.client().get("/ready")
    if answer.status_code == 200:
        assert answer.json() == {"status": "ready"}
        return []
    assert answer.status_code == 503
    assert answer.json()["error_type"] == "SERVICE_UNAVAILABLE"
    return list(answer.json()["reasons"])


def test_a_server_without_work_is_ready(settings: Settings, tmp_path: Path) -> None:
    with stand(settings.with_values(database_url=sqlite_url(tmp_path))) as server:
        assert server.client().get("/health").json() == {"status": "ok"}
        assert reasons(server) == []


def test_runs_that_nobody_executes_make_it_unready(settings: Settings, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    quick = settings.with_values(database_url=url, ready_patience_seconds=0.1, ring_again_seconds=0.1)
    with stand(quick) as server:
        client, _ = server.of_new_project()
        client.post(f"{API}/workflows/flow/run", json={})
        wait_until(lambda: reasons(server), seconds=10)
        [reason] = reasons(server)
        assert "no worker lives" in reason


def test_a_database_that_is_away_is_told_without_its_address(settings: Settings) -> None:
    away = settings.with_values(database_url=f"postgresql://me:secret@{NOWHERE}/db")
    with stand(away) as server:
        assert server.client().get("/health").status_code == 200
        assert ["database" in reason for reason in reasons(server)] == [True]
        answer = server.client("sk_" + "0" * 32).get(f"{API}/agents")
        assert (answer.status_code, answer.json()["error_type"]) == (503, "SERVICE_UNAVAILABLE")
        assert int(answer.headers["Retry-After"]) > 0
        assert NOWHERE not in answer.text + server.client().get("/ready").text


def test_a_broker_that_is_away_is_told(settings: Settings, tmp_path: Path) -> None:
    away = settings.with_values(database_url=sqlite_url(tmp_path), broker_url=f"redis://{NOWHERE}/0")
    with stand(away) as server:
        assert ["broker" in reason for reason in reasons(server)] == [True]


def test_runs_are_accepted_while_the_broker_is_away(settings: Settings, tmp_path: Path) -> None:
    away = settings.with_values(database_url=sqlite_url(tmp_path), broker_url=f"redis://{NOWHERE}/0")
    with stand(away) as server:
        client, _ = server.of_new_project()
        started = client.post(f"{API}/workflows/flow/run", json={})
        assert started.status_code == 200
        run_id = started.json()["execution_id"]
        assert client.get(f"{API}/executions/{run_id}").json()["status"] == "queued"
