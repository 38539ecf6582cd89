"""Retries and forks are the same on both ways: straight to the journal, and over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from offered import Gate, gated, steps

from polos import PolosClient
from polos.errors import IdempotencyError

pytestmark = pytest.mark.timeout(120)


def open_gate(gate: Gate) -> None:
    Path(gate.file).touch()


async def test_a_cancelled_run_is_retried(client: PolosClient, tmp_path: Path) -> None:
    gate = Gate(file=str(tmp_path / "open"))
    handle = await gated.invoke(client, gate)
    await client.cancel_execution(handle.id)
    await client.retry(handle.id)
    open_gate(gate)
    record = await client.wait(handle.id, timeout_seconds=20)
    assert (record["status"], record["result"], record["cancelled_by"]) == ("completed", "passed", None)


async def test_what_cannot_be_retried_is_refused(client: PolosClient) -> None:
    handle = await steps.invoke(client, {"n": 1})
    await client.wait(handle.id, timeout_seconds=20)
    with pytest.raises(ValueError, match="is completed; only failed and cancelled runs are retried"):
        await client.retry(handle.id)
    for name in ("no-such-run", "", "nul\0"):
        with pytest.raises(ValueError, match="There is no run"):
            await client.retry(name)


async def test_a_fork_goes_on_from_a_step_with_other_values(client: PolosClient) -> None:
    handle = await steps.invoke(client, {"n": 3})
    await client.wait(handle.id, timeout_seconds=20)
    fork = await client.fork(handle.id, "step1", input={"n": 4}, patch={"step0": {"value": "ö"}})
    record = await client.wait(fork.id, timeout_seconds=20)
    assert (record["result"], record["payload"]) == (4, {"n": 4})
    assert fork.root_execution_id == fork.id != handle.id


async def test_the_same_key_gives_the_same_fork(client: PolosClient) -> None:
    handle = await steps.invoke(client, {"n": 1})
    await client.wait(handle.id, timeout_seconds=20)
    first = await client.fork(handle.id, idempotency_key=f"fork {handle.id}")
    assert (await client.fork(handle.id, idempotency_key=f"fork {handle.id}")).id == first.id
    with pytest.raises(IdempotencyError):
        await client.fork(handle.id, input={"n": 2}, idempotency_key=f"fork {handle.id}")


async def test_what_cannot_be_forked_is_refused(client: PolosClient) -> None:
    handle = await steps.invoke(client, {"n": 1})
    await client.wait(handle.id, timeout_seconds=20)
    with pytest.raises(ValueError, match="has no step 'nowhere'; its journal has: 'step0'"):
        await client.fork(handle.id, "nowhere")
    with pytest.raises(ValueError, match="cannot be patched"):
        await client.fork(handle.id, "step0", patch={"step0": 1})
    with pytest.raises(ValueError, match="There is no run"):
        await client.fork("no-such-run")
    with pytest.raises(TypeError):
        await client.fork(handle.id, patch={"step0": object()})
