"""Which triggers are active: those that the newest deployment of a workflow declares."""

from __future__ import annotations

from typing import Any

import pytest
from post import Post

from polos.workflows import Workflow, register, workflow

pytestmark = pytest.mark.timeout(120)


def define(name: str, **options: Any) -> None:
    """Define a workflow anew, as the next version of a program does."""

    async def body(ctx: Any, payload: Any = None) -> None:
        return None

    register(Workflow(name, body, **options))


def active(post: Post) -> set[tuple[str, str]]:
    return {key for key, trigger in post.triggers().items() if trigger["is_active"]}


def test_a_worker_enters_what_its_code_declares(post: Post) -> None:
    define("w", trigger_on_event="orders", batch_size=5, batch_timeout_seconds=30, queue="q")
    post.worker("v1", ["w"])
    trigger = post.triggers()["w", "orders"]
    assert (trigger["batch_size"], trigger["batch_timeout_seconds"], trigger["queue"]) == (5, 30.0, "q")
    assert (trigger["deployment"], trigger["kind"], trigger["route"]) == ("v1", "workflow", "polos")


def test_several_workers_share_a_trigger(post: Post) -> None:
    define("w", trigger_on_event="orders")
    post.worker("v1", ["w"])
    post.publish("orders", 1)
    post.worker("v1", ["w"])
    post.fire()
    assert post.told("w") == [1]


def test_only_the_newest_deployment_gets_events(post: Post) -> None:
    define("w", trigger_on_event="orders")
    post.worker("v1", ["w"])
    post.worker("v2", ["w"])
    post.worker("v1", ["w"])
    post.publish("orders", 1)
    post.fire()
    assert [run["deployment"] for run in post.runs("w")] == ["v2"]


def test_events_of_a_redeployment_are_neither_lost_nor_doubled(post: Post) -> None:
    define("w", trigger_on_event="orders")
    post.worker("v1", ["w"])
    post.publish("orders", 1)
    post.fire()
    post.publish("orders", 2)
    post.worker("v2", ["w"])
    post.publish("orders", 3)
    post.fire()
    assert post.told("w") == [1, 2, 3]
    assert [run["deployment"] for run in post.runs("w")] == ["v1", "v2", "v2"]


def test_another_topic_replaces_the_old_one(post: Post) -> None:
    define("w", trigger_on_event="orders")
    post.worker("v1", ["w"])
    define("w", trigger_on_event="invoices")
    post.worker("v2", ["w"])
    assert active(post) == {("w", "invoices")}
    post.publish("orders", 1)
    post.fire()
    assert post.runs("w") == []


def test_a_worker_of_other_workflows_leaves_a_trigger_alone(post: Post) -> None:
    define("w", trigger_on_event="orders")
    define("other")
    post.worker("v1", ["w"])
    post.worker("v1", ["other"])
    post.worker("v2", ["other"])
    assert active(post) == {("w", "orders")}


def test_what_the_newest_deployment_dropped_starts_nothing_when_nobody_is_left(post: Post) -> None:
    """And it goes on where it was if the old code comes back."""
    define("w", trigger_on_event="orders")
    define("other")
    older = post.worker("v1", ["w", "other"])
    post.gone(older)
    post.worker("v2", ["other"])
    assert active(post) == set()
    post.publish("orders", 1)
    post.fire()
    assert post.runs("w") == []
    post.worker("v1", ["w", "other"])
    post.fire()
    assert [run["deployment"] for run in post.runs("w")] == ["v1"]


def test_code_that_was_rolled_back_gets_events_again(post: Post) -> None:
    define("w", trigger_on_event="orders")
    post.worker("v1", ["w"])
    post.gone(post.worker("v2", ["w"]))
    post.worker("v1", ["w"])
    post.publish("orders", 1)
    post.fire()
    assert [run["deployment"] for run in post.runs("w")] == ["v1"]


def test_a_trigger_that_no_code_declares_stays_and_goes_where_its_workflow_is_served(post: Post) -> None:
    define("w")
    post.trigger("w", "orders", deployment="v1", declared_by=None)
    newer = post.worker("v2", ["w"])
    post.publish("orders", 1)
    post.fire()
    post.gone(newer)
    post.publish("orders", 2)
    post.fire()
    assert [run["deployment"] for run in post.runs("w")] == ["v2", "v1"]


@pytest.mark.parametrize("topic", ["", "x" * 401, "workflow/w/1", 5])
def test_what_is_no_topic_of_programs_is_refused(topic: object) -> None:
    with pytest.raises(ValueError, match=r"topic|trigger_on_event"):

        @workflow(trigger_on_event=topic)  # type: ignore[arg-type]
        async def triggered(ctx) -> None: ...


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": True}, {"batch_timeout_seconds": 0}])
def test_a_batch_that_never_starts_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="batch_"):
        workflow(trigger_on_event="orders", **options)(lambda ctx: None)
