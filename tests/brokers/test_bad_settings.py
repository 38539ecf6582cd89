"""Settings that cannot work are refused at the start, by name, with advice, and without their passwords."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from broker_servers import (
    Certificates,
    RabbitMQ,
    Server,
    free_port,
    running,
    sentinel_server,
    tls_in_front_of,
    valkey_server,
)
from models.servers import ModelServer
from scripts import Folder
from services import Postgres
from sqlalchemy import make_url

from polos import PolosClient
from polos.errors import ConfigurationError, JournalUnavailableError
from polos.settings import Settings

pytestmark = pytest.mark.timeout(120)
CELERY = str(Path(sys.executable).with_name("celery"))
SECRET = "hunter2"


async def refusal(folder: Path, kind: type[Exception] = ConfigurationError, **values: str) -> str:
    """Return what a client says at its first use."""
    settings = Settings(home=folder, embedded_worker="0").with_values(**values)
    async with PolosClient(settings=settings) as client:
        with pytest.raises(kind) as caught:
            await client.invoke("anything", {})
    text = str(caught.value)
    assert SECRET not in text
    return text


# -- what is written


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:6379", ["names no broker", "'redis://:password@host:6379/0'"]),
        ("redis:/localhost", ["names no broker"]),
        (f"sqs://key:{SECRET}@", ["names no broker", "RabbitMQ"]),
        ("http://localhost", ["names no broker"]),
        ("memory://", ["names no broker"]),
        (f"redis://:{SECRET}/x@host/0", ["cannot be read", "%2F"]),
        (f"redis://:{SECRET}#x@host/0", ["cannot be read", "%23"]),
        ("redis://host:port/0", ["cannot be read"]),
        ("redis://host/first", ["'first'", "number of a database"]),
        ("redis://host/0?speed=fast", ["unknown option 'speed'"]),
        ("redis://host?ssl_cert_reqs=none", ["no TLS", "rediss://"]),
        ("rediss://host?ssl_cert_reqs=perhaps", ["required, optional or none"]),
        ("rediss://host?ssl_ca_certs=/nowhere/ca.pem", ["/nowhere/ca.pem", "not a file"]),
        ("amqps://host?ssl_cert_reqs=perhaps", ["ssl_cert_reqs", "required, optional and none"]),
        ("redis-cluster://host", ["Redis Cluster", "Sentinel"]),
        ("redis://a;redis://b", ["several servers", "Sentinel"]),
        (f"sentinel://:{SECRET}@a;sentinel://:{SECRET}@b", ["?master_name=mymaster", "celeryconfig.py"]),
        ("amqp://localhost", ["POLOS_REDIS_URL"]),
        ("unix://", ["names no socket"]),
    ],
)
async def test_a_broker_url_that_cannot_be_used(tmp_path: Path, url: str, words: list[str]) -> None:
    text = await refusal(tmp_path, broker_url=url)
    assert "POLOS_BROKER_URL" in text
    for word in words:
        assert word in text


async def test_the_setting_of_celeryconfig_is_named(tmp_path: Path, config: dict[str, object]) -> None:
    config["broker_url"] = "sqs://"
    assert "broker_url='sqs://'" in await refusal(tmp_path)


async def test_a_url_for_notices_that_cannot_be_used(tmp_path: Path, plain: Server) -> None:
    text = await refusal(tmp_path, broker_url=f"redis://127.0.0.1:{plain.port}", redis_url="amqp://host")
    assert "POLOS_REDIS_URL='amqp://host' is not the URL of a Redis" in text


# -- what the server says


async def test_a_login_that_is_wrong_or_missing(tmp_path: Path, guarded: Server) -> None:
    for login, words in [
        (f":{SECRET}@", "is refused by the server"),
        (f"someone:{SECRET}@", "is refused by the server"),
        ("", "the server wants one"),
    ]:
        text = await refusal(tmp_path, broker_url=f"redis://{login}127.0.0.1:{guarded.port}/0")
        assert "POLOS_BROKER_URL" in text
        assert words in text


async def test_the_login_of_the_server_for_notices(tmp_path: Path, plain: Server, guarded: Server) -> None:
    text = await refusal(
        tmp_path,
        broker_url=f"redis://127.0.0.1:{plain.port}/0",
        redis_url=f"redis://:{SECRET}@127.0.0.1:{guarded.port}/0",
    )
    assert "POLOS_REDIS_URL" in text
    assert "is refused by the server" in text


async def test_a_database_the_server_does_not_have(tmp_path: Path, plain: Server) -> None:
    text = await refusal(tmp_path, broker_url=f"redis://127.0.0.1:{plain.port}/99")
    assert "names database 99, which the server does not have" in text


async def test_tls_to_a_port_without_and_the_other_way_round(
    tmp_path: Path, plain: Server, certificates: Certificates
) -> None:
    text = await refusal(tmp_path, broker_url=f"rediss://127.0.0.1:{plain.port}/0")
    assert "the server does not speak it on this port" in text
    with tls_in_front_of(plain.port, certificates) as port:
        text = await refusal(tmp_path, broker_url=f"redis://127.0.0.1:{port}/0")
        assert "write 'rediss://'" in text
        text = await refusal(tmp_path, broker_url=f"rediss://127.0.0.1:{port}/0")
        assert "certificate is not trusted" in text


async def test_a_name_the_sentinels_do_not_know(tmp_path: Path, broker_folder: Path, plain: Server) -> None:
    with running(sentinel_server(broker_folder / "other-sentinel", plain.port)) as server:
        url = f"sentinel://127.0.0.1:{server.port}/0?master_name=yours"
        text = await refusal(tmp_path, broker_url=url)
    assert "its sentinels know 'mymaster'" in text


async def test_a_node_of_a_cluster(tmp_path: Path, broker_folder: Path) -> None:
    with running(
        valkey_server(broker_folder / "cluster", "cluster-enabled yes", f"cluster-port {free_port()}")
    ) as server:
        text = await refusal(tmp_path, broker_url=f"redis://127.0.0.1:{server.port}/0")
    assert "is a node of a Redis Cluster" in text


async def test_something_else_that_listens(tmp_path: Path, model: ModelServer) -> None:
    url = model.url.replace("http://", "redis://")
    assert "does not lead to a Redis or Valkey" in await refusal(tmp_path, broker_url=url)


# -- RabbitMQ


async def test_a_login_virtual_host_or_tls_that_rabbitmq_refuses(
    tmp_path: Path, plain: Server, rabbit: RabbitMQ
) -> None:
    place = f"127.0.0.1:{rabbit.port}"
    for url, words in [
        (f"amqp://guest:{SECRET}@{place}//", "wrong user or password"),
        (f"amqp://guest:guest@{place}/nowhere", "virtual host 'nowhere'"),
        (f"amqps://guest:guest@{place}//", "the server does not speak it on this port"),
    ]:
        text = await refusal(tmp_path, broker_url=url, redis_url=f"redis://127.0.0.1:{plain.port}")
        assert "POLOS_BROKER_URL" in text
        assert words in text


# -- PostgreSQL


async def test_a_login_or_database_that_postgresql_refuses(
    tmp_path: Path, plain: Server, postgres_server: Postgres
) -> None:
    good = make_url(postgres_server.create_database(empty=True))
    for url, words in [
        (good.set(username="nobody", password=SECRET), "nobody"),
        (good.set(database="nowhere"), 'database "nowhere" does not exist'),
    ]:
        text = await refusal(
            tmp_path,
            JournalUnavailableError,
            broker_url=f"redis://127.0.0.1:{plain.port}",
            database_url=url.render_as_string(hide_password=False),
        )
        assert "POLOS_DATABASE_URL" in text
        assert "cannot be used" in text
        assert words in text


# -- who says it


@pytest.mark.parametrize("command", ["polos", "celery"])
@pytest.mark.parametrize("wrong", ["url", "password"])
def test_workers_end_with_one_message(guarded: Server, command: str, wrong: str) -> None:
    url = {"url": f"sqs://key:{SECRET}@", "password": f"redis://:{SECRET}@127.0.0.1:{guarded.port}/0"}[wrong]
    words = {"url": "names no broker", "password": "is refused by the server"}[wrong]
    with Folder.new({"POLOS_BROKER_URL": url, "POLOS_IMPORTS": "definitions"}) as folder:
        folder.write("definitions.py", "@workflow\nasync def nothing(ctx: WorkflowContext) -> None: ...\n")
        start = {
            "polos": [sys.executable, "-m", "polos.cli.main", "worker"],
            "celery": [CELERY, "-A", "polos", "worker"],
        }
        worker = folder.command(*start[command])
        text = worker.ends(code=None, seconds=60)
    assert worker.process.returncode not in {0, None}
    assert text.count("POLOS_BROKER_URL") == 1
    assert words in text
    assert "Traceback" not in text
    assert SECRET not in text
