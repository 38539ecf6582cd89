"""A Celery app of the program's own, under settings that would break runs if they were for these, too."""

from __future__ import annotations

import json
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from models.servers import ModelServer
from redis import Redis
from scripts import Folder, Script, wait_until
from services import valkey

pytestmark = pytest.mark.timeout(240)
HERE = Path(__file__).parent
CELERY = str(Path(sys.executable).with_name("celery"))
ASYNCIO = "polos.worker.pool:AsyncioPool"
EXAMPLE = HERE.parents[1] / "examples" / "own_app"
NODE = "shop@fleet"
START = """
import asyncio
from polos import PolosClient
from shop import part

async def main():
    async with PolosClient() as client:
        run = await part.invoke(client, {"n": 1})
        print((await client.get_execution(run.id))["status"])

asyncio.run(main())
"""
SCRIPT = """
import asyncio
from polos import PolosClient
from shop import settings_of, whole

async def main():
    settings_of.delay()
    async with PolosClient() as client:
        assert await whole.run(client, {"n": 2}) == [None, 3]

asyncio.run(main())
"""
SETTINGS = {
    "accept_content": ["msgpack", "json"],
    "result_accept_content": ["msgpack", "json"],
    "result_serializer": "msgpack",
    "task_serializer": "msgpack",
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_compression": "gzip",
    "task_default_queue": "shop",
    "task_default_queue_type": "quorum",
    "task_create_missing_queues": False,
    "task_default_rate_limit": "1000/m",
    "task_time_limit": 20,
    "task_annotations": {"polos.*": {"rate_limit": "1/h"}, "*": {"soft_time_limit": 1}},
    "task_routes": {"*": {"queue": "shop", "exchange": "shop", "routing_key": "shop", "priority": 3}},
    "worker_max_tasks_per_child": 20,
    "worker_send_task_events": True,
}


@dataclass
class Shop:
    """A folder with the program, and its servers."""

    folder: Folder
    broker_url: str
    results_url: str

    def worker(self, *options: str, **variables: str) -> Script:
        return self.folder.command(
            CELERY, "-A", "shop", "worker", "-l", "INFO", "-n", NODE, *options, **variables
        )

    def celery(self, *words: str) -> str:
        return self.folder.command(CELERY, "-A", "shop", *words).ends(seconds=60)

    def results(self) -> set[str]:
        """Return the ids of tasks whose results are kept."""
        keys = Redis.from_url(self.results_url, decode_responses=True).scan_iter("celery-task-meta-*")
        return {key.removeprefix("celery-task-meta-") for key in keys}


@pytest.fixture(scope="module")
def shop_server() -> Iterator[str]:
    with valkey() as url:
        yield url


def _open(url: str, model: ModelServer, settings: dict[str, Any]) -> Any:
    return Folder.new(
        {
            **model.environment,
            "POLOS_EMBEDDED_WORKER": "0",
            "POLOS_PRELOAD_MODELS": "0",
            "SHOP_BROKER": f"{url}/0",
            "SHOP_RESULTS": f"{url}/1",
            "SHOP_SETTINGS": json.dumps(settings),
        }
    )


@pytest.fixture
def shop(shop_server: str, model_of_fleets: ModelServer) -> Iterator[Shop]:
    """A shop without a worker and without settings."""
    with _open(shop_server, model_of_fleets, {}) as folder:
        Redis.from_url(shop_server).flushall()
        shutil.copy(HERE / "shop.py", folder.path)
        yield Shop(folder, f"{shop_server}/0", f"{shop_server}/1")


@dataclass
class Served:
    """What a customer of a shop was given."""

    shop: Shop
    pool: str
    answers: dict[str, Any]


@pytest.fixture(scope="module", params=["asyncio", "prefork"])
def served(
    request: pytest.FixtureRequest, shop_server: str, model_of_fleets: ModelServer
) -> Iterator[Served]:
    """One worker for tasks and runs alike, with all of SETTINGS; a customer was there."""
    pool = request.param
    settings = {**SETTINGS, **({"worker_pool": ASYNCIO} if pool == "asyncio" else {"worker_concurrency": 2})}
    model_of_fleets.reset()
    model_of_fleets.calls(("stock", {}))
    model_of_fleets.says("There are three.")
    with _open(shop_server, model_of_fleets, settings) as folder:
        Redis.from_url(shop_server).flushall()
        for name in ("shop.py", "shop_customer.py"):
            shutil.copy(HERE / name, folder.path)
        shop = Shop(folder, f"{shop_server}/0", f"{shop_server}/1")
        shop.worker().wait_for(" ready.", seconds=60)
        once = {} if pool == "asyncio" else {"DIES_ONCE": "died"}
        customer = [sys.executable, "-W", "error::UserWarning", "shop_customer.py"]
        printed = folder.command(*customer, **once).ends(seconds=120)
        yield Served(shop, pool, json.loads(printed.splitlines()[-1]))


def test_runs_are_not_limited_by_what_the_app_says_of_all_tasks(served: Served) -> None:
    assert served.answers["orders"] == [[None, 6]] * 3


def test_agents_are_served_beside_the_tasks(served: Served) -> None:
    assert served.answers["answer"] == "There are three."


def test_its_own_tasks_keep_the_settings_of_the_app(served: Served) -> None:
    kept = served.answers["settings"]
    assert (kept["acks_late"], kept["rate_limit"], kept["serializer"]) == (True, "1000/m", "msgpack")
    assert (kept["limits"], kept["queue"]) == ([20, 1], "shop")


def test_its_own_tasks_keep_their_serializer(served: Served) -> None:
    assert served.answers["seconds"] == 7


def test_its_own_tasks_keep_their_time_limit(served: Served) -> None:
    assert served.answers["slow"].endswith("TimeLimitExceeded")  # the soft one comes first or second


def test_its_own_tasks_keep_their_rate_limit(served: Served) -> None:
    assert abs(served.answers["second"] - served.answers["first"]) > 0.5


def test_its_own_tasks_are_acknowledged_late(served: Served) -> None:
    if served.pool == "prefork":
        assert served.answers["late"] == "delivered again"
    assert served.answers["settings"]["acks_late"] is True


def test_the_result_backend_holds_nothing_of_runs(served: Served) -> None:
    assert served.shop.results() == set(served.answers["ids"])


def test_eager_tasks_do_not_make_runs_eager(served: Served) -> None:
    eager = served.answers["eager"]
    assert eager["pid"] == eager["own_pid"]
    assert eager["run"] == [None, 1]


def test_inspect_shows_the_tasks_of_both(served: Served) -> None:
    registered = served.shop.celery("inspect", "registered", "--timeout", "30", "--destination", NODE)
    assert {"shop.settings_of", "polos.run", "polos.turn"} <= set(re.findall(r"[\w.]+", registered))


def test_flower_shows_the_worker_of_the_app(served: Served) -> None:
    flower = served.shop.folder.command(CELERY, "-A", "shop", "flower", "--port=0", "--address=127.0.0.1")
    flower.wait_for("Visit me at", seconds=60)
    [url] = re.findall(r"Visit me at (http://[\w.:]+)", flower.text)
    wait_until(lambda: NODE in urllib.request.urlopen(f"{url}/workers").read().decode(), seconds=60)


def test_an_embedded_worker_leaves_the_tasks_of_the_app_alone(shop: Shop) -> None:
    """It rings and executes through the app, but takes nothing from the app's own queue."""
    (shop.folder.path / "script.py").write_text(SCRIPT)
    shop.folder.start("script.py", POLOS_EMBEDDED_WORKER="1").ends(seconds=60)
    assert Redis.from_url(shop.broker_url).llen("celery") == 1
    assert shop.results() == set()


def test_a_run_is_accepted_while_the_broker_of_the_app_is_away(shop: Shop) -> None:
    (shop.folder.path / "script.py").write_text(START)
    settings = json.dumps({"broker_connection_timeout": 0.5})
    away = {"SHOP_BROKER": "redis://127.0.0.1:1/0", "SHOP_RESULTS": "disabled://", "SHOP_SETTINGS": settings}
    told = shop.folder.start("script.py", **away).ends(seconds=60)
    assert "What was started is accepted" in told
    assert told.splitlines()[-1] == "queued"


def test_polos_is_installed_in_an_app_once(shop: Shop) -> None:
    (shop.folder.path / "twice.py").write_text("import shop, polos\npolos.install(shop.app)\n")
    assert "polos is installed in the Celery app 'shop' already" in shop.folder.start("twice.py").ends(code=1)


def test_two_brokers_are_refused_without_their_passwords(shop: Shop) -> None:
    (shop.folder.path / "program.py").write_text("import shop\n")
    told = shop.folder.start("program.py", POLOS_BROKER_URL="redis://:secret@elsewhere:6379/0").ends(code=1)
    assert "'shop' has the broker redis://127.0.0.1" in told
    assert "unset POLOS_BROKER_URL" in told
    assert "secret" not in told


def test_a_worker_that_could_not_read_doorbells_is_refused(shop: Shop) -> None:
    told = shop.worker(SHOP_SETTINGS=json.dumps({"accept_content": ["msgpack"]})).ends(code=1, seconds=60)
    assert "Error: accept_content is ['msgpack']: add 'json'" in told


def test_scaling_a_pool_that_has_a_fixed_size_is_refused(shop: Shop) -> None:
    told = shop.worker("--autoscale", "8,2", SHOP_SETTINGS=json.dumps({"worker_pool": ASYNCIO})).ends(code=1)
    assert "Error: --autoscale is for a prefork pool, and this is asyncio" in told


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_a_pool_of_green_threads_is_refused(shop: Shop, pool: str) -> None:
    pytest.importorskip(pool, reason=f"the package {pool} is not installed")
    told = shop.worker("-P", pool).ends(code=1, seconds=60)
    assert "polos cannot serve runs on the pool" in told


def test_the_example_runs_as_its_readme_says(model_of_fleets: ModelServer) -> None:
    """The task, the workflow, the agent and the task that the workflow enqueued."""
    model_of_fleets.reset()
    model_of_fleets.says("Thank you, Ada.")
    with Folder.new({**model_of_fleets.environment, "POLOS_EMBEDDED_WORKER": "0"}) as folder:
        shutil.copytree(EXAMPLE, folder.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".polos"))
        worker = folder.command(CELERY, "-A", "proj", "worker", "--loglevel", "info")
        worker.wait_for(" ready.", seconds=60)
        assert folder.start("order.py").ends(seconds=60) == "99.5: Thank you, Ada."
        worker.wait_for("mail to ada@example.com: Thank you, Ada.", seconds=60)
