"""A program with a Celery app of its own, under settings that would break runs if they were for these, too."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from models.servers import ModelServer
from redis import Redis
from scripts import Folder, Script
from services import valkey

pytestmark = pytest.mark.timeout(240)
HERE = Path(__file__).parent
CELERY = str(Path(sys.executable).with_name("celery"))
ASYNCIO = "polos.worker.pool:AsyncioPool"
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
    results_url: str

    def worker(self, *options: str, **variables: str) -> Script:
        return self.folder.command(CELERY, "-A", "shop", "worker", "-l", "INFO", *options, **variables)

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
        yield Shop(folder, f"{shop_server}/1")


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
        shop = Shop(folder, f"{shop_server}/1")
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
    assert served.answers["slow"] == "TimeLimitExceeded"


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
    registered = served.shop.celery("inspect", "registered", "--timeout", "10")
    assert {"shop.settings_of", "polos.run", "polos.turn"} <= set(re.findall(r"[\w.]+", registered))


def test_flower_shows_the_workers_of_the_app(served: Served) -> None:
    flower = served.shop.folder.command(CELERY, "-A", "shop", "flower", "--port=0", "--address=127.0.0.1")
    flower.wait_for("Visit me at", seconds=60)
