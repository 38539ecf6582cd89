"""What a client sees and does: records, handles, batches, keys, loops."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest
from backends import on_both
from gates import Gate
from pydantic import BaseModel

from polos import (
    BatchWorkflowInput,
    ExecutionHandle,
    Polos,
    PolosClient,
    WorkflowContext,
    batch_invoke,
    workflow,
)
from polos.errors import IdempotencyError

pytestmark = pytest.mark.timeout(120)

FIELDS = [
    "id",
    "workflow_id",
    "status",
    "payload",
    "result",
    "error",
    "created_at",
    "started_at",
    "completed_at",
    "deployment_id",
    "assigned_to_worker",
    "parent_execution_id",
    "root_execution_id",
    "retry_count",
    "step_key",
    "queue_name",
    "concurrency_key",
    "batch_id",
    "session_id",
    "user_id",
    "output_schema_name",
    "cancelled_at",
    "cancelled_by",
    "run_timeout_seconds",
    "root_workflow_id",
    "initial_state",
    "final_state",
]


class Number(BaseModel):
    n: int


@workflow(id="e2e-client-double")
async def double(ctx: WorkflowContext, payload: Number) -> Number:
    return Number(n=payload.n * 2)


@workflow(id="e2e-client-list")
async def listed(ctx: WorkflowContext, payload: Number) -> list[Number]:
    return [payload, Number(n=0)]


@on_both
async def test_a_record_has_every_documented_field(polos: Polos) -> None:
    handle = await double.invoke(
        polos,
        Number(n=1),
        queue="q",
        concurrency_key="k",
        session_id="s",
        user_id="u",
        run_timeout_seconds=60,
    )
    record = await polos.wait(handle.id)

    assert set(FIELDS) <= set(record)
    given = {name: record[name] for name in FIELDS if not name.endswith("_at")}
    assert given == {
        "id": handle.id,
        "workflow_id": "e2e-client-double",
        "status": "completed",
        "payload": {"n": 1},
        "result": {"n": 2},
        "error": None,
        "deployment_id": "default",
        "assigned_to_worker": None,
        "parent_execution_id": None,
        "root_execution_id": handle.id,
        "retry_count": 0,
        "step_key": None,
        "queue_name": "q",
        "concurrency_key": "k",
        "batch_id": None,
        "session_id": "s",
        "user_id": "u",
        "output_schema_name": f"{__name__}.Number",
        "cancelled_by": None,
        "run_timeout_seconds": 60,
        "root_workflow_id": "e2e-client-double",
        "initial_state": None,
        "final_state": None,
    }
    created, started, completed = (
        datetime.fromisoformat(record[name]) for name in ("created_at", "started_at", "completed_at")
    )
    assert created <= started <= completed
    assert created.utcoffset() is not None


async def test_a_record_says_where_a_running_run_stands(polos: Polos) -> None:
    gate = Gate()

    @workflow(id="e2e-client-running")
    async def running(ctx: WorkflowContext) -> None:
        await gate.passed()

    handle = await running.invoke(polos)
    await gate.reached()
    record = await polos.get_execution(handle.id)
    gate.open()
    await polos.wait(handle.id)

    assert (record["status"], record["completed_at"]) == ("running", None)
    assert record["assigned_to_worker"]


async def test_an_unknown_run_is_an_error_that_names_the_project(polos: Polos) -> None:
    with pytest.raises(ValueError, match=r"no run 'nothing' in project 'default'"):
        await polos.get_execution("nothing")


async def test_runs_of_another_project_are_not_seen(polos: Polos) -> None:
    handle = await double.invoke(polos, Number(n=1))
    async with PolosClient(project_id="another") as other:
        with pytest.raises(ValueError, match="'another'"):
            await other.get_execution(handle.id)
        assert await other.cancel_execution(handle.id) is False
        with pytest.raises(ValueError, match="'another'"):
            await other.wait(handle.id, timeout_seconds=1)


# -- handles


async def test_a_handle_rebuilds_the_result(polos: Polos) -> None:
    handle = await double.invoke(polos, Number(n=2))
    await polos.wait(handle.id)
    found = await handle.get(polos)

    assert list(found) == [
        "status",
        "result",
        "error",
        "created_at",
        "completed_at",
        "parent_execution_id",
        "root_workflow_id",
        "root_execution_id",
        "output_schema_name",
        "step_key",
    ]
    assert found["result"] == Number(n=4)


async def test_a_handle_rebuilds_a_list_of_models(polos: Polos) -> None:
    handle = await listed.invoke(polos, Number(n=2))
    await polos.wait(handle.id)
    assert (await handle.get(polos))["result"] == [Number(n=2), Number(n=0)]


async def test_a_handle_of_a_class_that_is_not_here_gives_plain_data(
    polos: Polos, caplog: pytest.LogCaptureFixture
) -> None:
    class Local(BaseModel):
        n: int

    @workflow(id="e2e-client-local")
    async def local(ctx: WorkflowContext) -> Any:
        return Local(n=1)

    handle = await local.invoke(polos)
    await polos.wait(handle.id)
    assert (await handle.get(polos))["result"] == {"n": 1}
    assert "Local is not available in this process" in caplog.text


async def test_a_handle_survives_json_and_shows_only_what_is_there(polos: Polos) -> None:
    handle = await double.invoke(polos, Number(n=2))
    again = ExecutionHandle.model_validate(handle.to_dict())

    assert again == handle
    assert "parent_execution_id" not in repr(handle)
    assert (handle.root_workflow_id, handle.root_execution_id) == ("e2e-client-double", handle.id)
    await polos.wait(again.id)


# -- several runs


@on_both
async def test_a_batch_starts_everything_and_answers_in_order(polos: Polos) -> None:
    items = [BatchWorkflowInput(id="e2e-client-double", payload=Number(n=n)) for n in range(5)]
    handles = await batch_invoke(polos, items, session_id="s", user_id="u")

    records = [await polos.wait(handle.id) for handle in handles]
    assert [record["result"]["n"] for record in records] == [0, 2, 4, 6, 8]
    assert {(record["session_id"], record["user_id"]) for record in records} == {("s", "u")}


async def test_a_batch_of_nothing_is_nothing(polos: Polos) -> None:
    assert await polos.batch_invoke([]) == []


async def test_a_batch_with_one_unknown_id_starts_nothing(polos: Polos) -> None:
    items = [
        BatchWorkflowInput(id="e2e-client-double", payload={"n": 1}),
        BatchWorkflowInput(id="nobody-knows", payload={}),
    ]
    with pytest.raises(ValueError, match="'nobody-knows' is not defined"):
        await polos.batch_invoke(items, session_id="batch-with-unknown")


async def test_a_batch_with_one_missing_payload_starts_nothing(polos: Polos) -> None:
    items = [
        BatchWorkflowInput(id="e2e-client-double", payload={"n": 1}),
        BatchWorkflowInput(id="e2e-client-double"),
    ]
    with pytest.raises(ValueError, match="needs a payload"):
        await polos.batch_invoke(items)


# -- the same run once


@on_both
async def test_an_idempotency_key_starts_one_run(polos: Polos) -> None:
    handles = await asyncio.gather(
        *(polos.invoke("e2e-client-double", {"n": 1}, idempotency_key="once") for _ in range(5))
    )
    assert len({handle.id for handle in handles}) == 1
    assert (await polos.wait(handles[0].id))["result"] == {"n": 2}

    again = await polos.invoke("e2e-client-double", {"n": 1}, idempotency_key="once")
    assert again.id == handles[0].id


async def test_an_idempotency_key_with_another_input_is_refused(polos: Polos) -> None:
    first = await polos.invoke("e2e-client-double", {"n": 1}, idempotency_key="twice")
    with pytest.raises(IdempotencyError, match=f"'twice' was used for run {first.id}"):
        await polos.invoke("e2e-client-double", {"n": 2}, idempotency_key="twice")


# -- names runs are filed under


@pytest.mark.parametrize(
    "name", ["session_id", "user_id", "concurrency_key", "queue_name", "idempotency_key"]
)
@pytest.mark.parametrize(
    ("label", "error"), [("a\x00b", ValueError), ("x" * 401, ValueError), (7, TypeError)]
)
async def test_a_label_no_database_holds_is_refused_before_anything_starts(
    polos: Polos, name: str, label: Any, error: type[Exception]
) -> None:
    with pytest.raises((error, ValueError), match=r"cannot be used|valid string"):
        await polos.invoke("e2e-client-double", {"n": 1}, **{name: label})


# -- the program


async def test_starting_again_is_harmless(polos: Polos) -> None:
    await polos.start()
    await polos.start()
    assert await double.run(polos, Number(n=1)) == Number(n=2)


async def test_a_run_may_be_waited_for_without_a_limit(polos: Polos) -> None:
    handle = await double.invoke(polos, Number(n=1))
    assert await double.run(polos, Number(n=1), timeout=None) == Number(n=2)
    assert (await polos.get_execution(handle.id))["run_timeout_seconds"] is None


async def test_serve_returns_when_it_is_stopped(polos: Polos) -> None:
    serving = asyncio.create_task(polos.serve())
    await asyncio.sleep(0)
    await polos.stop()
    await asyncio.wait_for(serving, 10)
    await polos.stop()
    await polos.start()
    assert await double.run(polos, Number(n=1)) == Number(n=2)


def test_channels_are_refused_as_not_supported() -> None:
    with pytest.raises(ValueError, match="not supported by this version"):
        Polos(channels=[object()])


# -- loops


def test_a_client_works_from_one_loop_after_another(polos: Polos) -> None:
    assert asyncio.run(double.run(polos, Number(n=1))) == Number(n=2)
    assert asyncio.run(double.run(polos, Number(n=2))) == Number(n=4)


async def test_many_waits_at_once_all_end(polos: Polos) -> None:
    found = await asyncio.gather(*(double.run(polos, Number(n=n)) for n in range(50)))
    assert [one.n for one in found] == [2 * n for n in range(50)]
