"""Every way to reach a Redis or Valkey carries both Celery's messages and our notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from broker_program import passes_everything, serving
from broker_servers import (
    Certificates,
    Server,
    admin,
    redis_server,
    running,
    sentinel_server,
    tls_in_front_of,
)
from models.servers import ModelServer

pytestmark = pytest.mark.timeout(120)
PASSWORD = quote("s3cret/@:#", safe="")
USER = f"worker:{quote('w0rker/@', safe='')}"


@pytest.fixture(scope="module")
def tls_port(plain: Server, certificates: Certificates) -> Iterator[int]:
    with tls_in_front_of(plain.port, certificates) as port:
        yield port


@pytest.fixture(scope="module")
def sentinels(broker_folder: Path, guarded: Server) -> Iterator[str]:
    """The URL of two sentinels, of which the first is away."""
    login = [f'sentinel auth-pass mymaster "{"s3cret/@:#"}"']
    with running(sentinel_server(broker_folder / "sentinel", guarded.port, *login)) as server:
        yield f"sentinel://:{PASSWORD}@127.0.0.1:1;sentinel://127.0.0.1:{server.port}/0"


async def test_host_and_port(tmp_path: Path, plain: Server, model: ModelServer) -> None:
    async with serving(tmp_path, broker_url=f"redis://127.0.0.1:{plain.port}") as client:
        await passes_everything(client, model)


async def test_valkeys_own_scheme_and_a_database_number(
    tmp_path: Path, plain: Server, model: ModelServer
) -> None:
    async with serving(tmp_path, broker_url=f"valkey://127.0.0.1:{plain.port}/7") as client:
        await passes_everything(client, model)
    with admin(plain.port, db=7) as database:
        assert database.exists("_kombu.binding.polos")


@pytest.mark.parametrize("scheme", ["unix", "redis+socket"])
async def test_a_unix_socket(tmp_path: Path, plain: Server, model: ModelServer, scheme: str) -> None:
    number = {"unix": "db=3", "redis+socket": "virtual_host=4"}[scheme]
    url = f"{scheme}://{plain.folder / 'v.sock'}?{number}"
    async with serving(tmp_path, broker_url=url) as client:
        await passes_everything(client, model)
    with admin(plain.port, db=int(number[-1])) as database:
        assert database.exists("_kombu.binding.polos")


async def test_a_password_full_of_signs(tmp_path: Path, guarded: Server, model: ModelServer) -> None:
    async with serving(tmp_path, broker_url=f"redis://:{PASSWORD}@127.0.0.1:{guarded.port}/0") as client:
        await passes_everything(client, model)


async def test_a_user_who_may_do_no_more_than_needed(
    tmp_path: Path, guarded: Server, model: ModelServer, config: dict[str, object]
) -> None:
    config["broker_transport_options"] = {"global_keyprefix": "app:"}
    async with serving(tmp_path, broker_url=f"redis://{USER}@127.0.0.1:{guarded.port}/0") as client:
        await passes_everything(client, model)


@pytest.mark.parametrize(
    ("scheme", "query"),
    [
        ("rediss", "ssl_cert_reqs=required&ssl_ca_certs={ca}"),
        ("valkeys", "ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={ca}"),
        ("rediss", "ssl_cert_reqs=none"),
        ("rediss", "ssl_cert_reqs=CERT_NONE"),
    ],
)
async def test_tls_in_either_spelling(
    tmp_path: Path, tls_port: int, certificates: Certificates, model: ModelServer, scheme: str, query: str
) -> None:
    url = f"{scheme}://127.0.0.1:{tls_port}/0?{query.format(ca=certificates.authority)}"
    async with serving(tmp_path, broker_url=url) as client:
        await passes_everything(client, model)


async def test_tls_by_celerys_broker_use_ssl(
    tmp_path: Path,
    tls_port: int,
    certificates: Certificates,
    model: ModelServer,
    config: dict[str, object],
) -> None:
    config["broker_use_ssl"] = {"ssl_cert_reqs": "required", "ca_certs": str(certificates.authority)}
    async with serving(tmp_path, broker_url=f"redis://127.0.0.1:{tls_port}/0") as client:
        await passes_everything(client, model)


async def test_a_redis_that_speaks_tls_itself(
    tmp_path: Path, broker_folder: Path, certificates: Certificates, model: ModelServer
) -> None:
    with running(redis_server(broker_folder / "redis-tls", certificates)) as server:
        url = f"rediss://localhost:{server.port}/0?ssl_ca_certs={certificates.authority}"
        async with serving(tmp_path, broker_url=url) as client:
            await passes_everything(client, model)


async def test_sentinels_named_in_the_url(tmp_path: Path, sentinels: str, model: ModelServer) -> None:
    async with serving(tmp_path, broker_url=f"{sentinels}?master_name=mymaster") as client:
        await passes_everything(client, model)


async def test_sentinels_named_in_celeryconfig(
    tmp_path: Path, sentinels: str, model: ModelServer, config: dict[str, object]
) -> None:
    config["broker_transport_options"] = {"master_name": "mymaster"}
    async with serving(tmp_path, broker_url=sentinels) as client:
        await passes_everything(client, model)


async def test_prefixes_keep_two_installations_of_one_redis_apart(
    tmp_path: Path, plain: Server, model: ModelServer, config: dict[str, object]
) -> None:
    config["broker_transport_options"] = {"global_keyprefix": "mine:"}
    url = f"redis://127.0.0.1:{plain.port}/9"
    async with serving(tmp_path, broker_url=url, redis_prefix="mine:") as client:
        with admin(plain.port, db=9, decode_responses=True) as database:
            await passes_everything(client, model)
            assert {channel.partition(":")[0] for channel in database.pubsub_channels("mine:*")} == {"mine"}
            assert {key.partition(":")[0] for key in database.scan_iter()} == {"mine"}


async def test_notices_may_have_a_server_of_their_own(
    tmp_path: Path, plain: Server, guarded: Server, model: ModelServer
) -> None:
    values = {
        "broker_url": f"redis://127.0.0.1:{plain.port}/0",
        "redis_url": f"redis://:{PASSWORD}@127.0.0.1:{guarded.port}/5",
        "redis_prefix": "apart:",
    }
    async with serving(tmp_path, **values) as client:
        with admin(guarded.port, password="s3cret/@:#") as database:
            await passes_everything(client, model)
            assert database.pubsub_channels("apart:*")
