from __future__ import annotations

import json
import resource
import socket
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import psycopg
import pytest
import redis
from benches import Bench
from services import Postgres, valkey
from written import Written, polos, without_settings

from polos.cli.doctor import machine, services
from polos.cli.doctor.findings import Finding, Level, bounded
from polos.cli.doctor.services import check_broker, check_database, check_notices
from polos.journal import health
from polos.settings import Settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    without_settings(monkeypatch)
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLOS_HOME", str(tmp_path / ".polos"))
    return tmp_path


@pytest.fixture
def broker(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("POLOS_BROKER_URL", f"{valkey_url}/0")
    return valkey_url


def examined() -> tuple[int, list[Finding]]:
    answer = polos("doctor", "--json")
    return answer.exit_code, [
        Finding(**{**each, "level": Level(each["level"])}) for each in json.loads(answer.output)
    ]


def wrong_ones(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(one.subject, one.text) for one in findings if one.level is Level.WRONG]


def texts(findings: list[Finding], subject: str) -> str:
    return "\n".join(f"{one.level} {one.text} {one.advice}" for one in findings if one.subject == subject)


# -- nothing is configured


def test_folder_without_anything_is_fine_and_left_as_it_is(folder: Path) -> None:
    code, findings = examined()
    assert (code, wrong_ones(findings)) == (0, [])
    assert "not running" in texts(findings, "broker")
    assert "not there yet" in texts(findings, "database")
    assert list(folder.iterdir()) == []


# -- servers


def test_servers_that_answer_are_told_with_their_versions(journal: Written, broker: str) -> None:
    code, findings = examined()
    assert (code, wrong_ones(findings)) == (0, [])
    assert "ok Valkey" in texts(findings, "broker")
    assert "can be written" in texts(findings, "database")
    kind = "SQLite" if journal.database.is_sqlite else "PostgreSQL"
    assert f"ok {kind}" in texts(findings, "database")


def test_broker_of_celeryconfig_is_found_and_named(bench: Bench, valkey_url: str) -> None:
    (bench.folder / "celeryconfig.py").write_text(f'broker_url = "{valkey_url}/0"\n')
    code, output = bench.run("doctor")
    assert (code, f"{valkey_url}/0 (broker_url in celeryconfig.py)" in output) == (0, True), output


def test_servers_that_do_not_answer_are_named_without_their_passwords(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POLOS_DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:1/runs")
    monkeypatch.setenv("POLOS_BROKER_URL", "redis://:hunter3@127.0.0.1:1/0")
    answer = polos("doctor")
    assert answer.exit_code == 1
    assert answer.output.count("wrong") == 2
    assert "hunter" not in answer.output


def test_server_that_hangs_does_not_hang_the_doctor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/runs"
        check = partial(check_database, Settings(database_url=url))
        findings = bounded("database", check, seconds=0.5)
    assert [one.level for one in findings] == [Level.OK, Level.WRONG]
    assert "no answer within 0.5 seconds" in findings[-1].text


def test_rabbitmq_without_redis_is_wrong() -> None:
    findings = list(check_notices(Settings(broker_url="amqp://guest:guest@localhost//")))
    assert [(one.level, "POLOS_REDIS_URL" in one.advice) for one in findings] == [(Level.WRONG, True)]


@pytest.mark.parametrize(
    ("host", "level"), [("8.8.8.8", Level.WRONG), ("10.1.2.3", Level.NOTE), ("127.0.0.1", None)]
)
def test_broker_without_a_password_is_judged_by_who_reaches_it(host: str, level: Level | None) -> None:
    findings = services._check_password(f"redis://{host}:6379/0")
    assert [one.level for one in findings] == ([level] if level else [])


def test_password_makes_an_open_address_good() -> None:
    assert list(services._check_password("redis://:secret@8.8.8.8:6379/0")) == []


@pytest.fixture
def full_server() -> Iterator[str]:
    with valkey() as url, redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        yield url


def test_broker_that_removes_any_key_when_it_is_full_is_wrong(full_server: str) -> None:
    findings = list(check_broker(Settings(broker_url=f"{full_server}/0")))
    assert (findings[-1].level, "allkeys-lru" in findings[-1].text) == (Level.WRONG, True)
    assert "noeviction" in findings[-1].advice


# -- the database


def test_database_of_another_version_is_wrong(journal: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polos.journal.schema.HEAD", "9999")
    findings = list(check_database(Settings.from_environment()))
    assert (findings[-1].level, "polos db upgrade" in findings[-1].text) == (Level.WRONG, True)


def test_role_that_may_only_read_is_wrong(postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres_server.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN IN ROLE pg_read_all_data")
    settings = Settings(database_url=url.replace("postgres:@", "reader:@"))
    findings = bounded("database", partial(check_database, settings))
    assert (findings[-1].level, "permission denied" in findings[-1].text) == (Level.WRONG, True)


def test_connection_without_a_pooler_is_known_as_such(postgres_server: Postgres) -> None:
    journal = services.find_database(Settings(database_url=postgres_server.create_database()))
    assert health.ask(journal).pooled is False


def test_clock_that_differs_is_noted(journal: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_CLOCK_SECONDS", -1.0)
    [told] = [one for one in check_database(Settings.from_environment()) if one.subject == "clocks"]
    assert told.level is Level.NOTE


def test_disk_that_is_nearly_full_is_wrong(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MIN_FREE_BYTES", 1 << 62)
    found = wrong_ones(list(check_database(Settings(home=folder))))
    assert [(subject, "MB are free" in text) for subject, text in found] == [("database", True)]


def test_network_file_system_under_sqlite_is_wrong(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path_factory.mktemp("proc") / "mountinfo"
    mounts.write_text("1 0 0:1 / / rw - nfs4 server:/export rw\n")
    monkeypatch.setattr(services, "MOUNTINFO", mounts)
    found = wrong_ones(list(check_database(Settings(home=folder))))
    assert [(subject, "nfs4" in text) for subject, text in found] == [("database", True)]


# -- the fleet


def test_runs_that_wait_while_no_worker_lives_are_told(journal: Written) -> None:
    journal.run("orphan")
    code, findings = examined()
    assert (code, [subject for subject, _ in wrong_ones(findings)]) == (1, ["workers"])


def test_definition_that_no_worker_offers_is_told(journal: Written) -> None:
    journal.worker("w1", ("workflow", "other"))
    journal.run("orphan")
    [(subject, text)] = wrong_ones(examined()[1])
    assert (subject, "1 run of workflow 'orphan'" in text) == ("definitions", True)


def test_deployment_that_no_worker_has_is_told(journal: Written) -> None:
    journal.worker("w1", ("workflow", "flow"))
    journal.run("flow", deployment="old")
    [(subject, text)] = wrong_ones(examined()[1])
    assert (subject, "deployment 'old'" in text) == ("definitions", True)


def test_route_that_no_worker_serves_is_told(journal: Written) -> None:
    journal.worker("w1", ("workflow", "flow"))
    journal.run("flow", route="gpu")
    [(subject, text)] = wrong_ones(examined()[1])
    assert (subject, "'gpu'" in text) == ("routes", True)


def test_turn_that_no_worker_can_make_is_told(journal: Written) -> None:
    journal.worker("w1", ("agent", "other"))
    journal.turn(journal.claimed(journal.run("helper", kind="agent")))
    [(subject, text)] = wrong_ones(examined()[1])
    assert (subject, "1 turn of agent 'helper'" in text) == ("definitions", True)


def test_work_that_a_worker_will_take_is_no_finding(journal: Written) -> None:
    journal.worker("w1", ("workflow", "flow"), routes="gpu,polos")
    journal.run("flow", route="gpu")
    assert wrong_ones(examined()[1]) == []


# -- the machine


def test_too_few_open_files_for_the_slots_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(machine, "MIN_OPEN_FILES", soft + 1)
    [found] = machine.check_open_files(Settings())
    assert (found.level, f"ulimit -n {soft + 1}" in found.advice) == (Level.WRONG, True)


def test_versions_are_told() -> None:
    [found] = islice(machine.check_versions(), 2)
    assert (found.level, "celery" in found.text, "litellm" in found.text) == (Level.OK, True, True)
