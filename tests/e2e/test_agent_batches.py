"""Many inputs for one agent, a bounded number at a time."""

from __future__ import annotations

from typing import Any

import pytest
from models.servers import ModelServer

from polos import Agent, Polos
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)

agent = Agent(id="batched", provider="openai", model="gpt-4o")


class Counting:
    """A client that counts the runs which have not been waited for."""

    def __init__(self, polos: Polos) -> None:
        self._polos = polos
        self.now = self.most = 0

    async def invoke(self, *args: Any, **options: Any) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        return await self._polos.invoke(*args, **options)

    async def wait(self, *args: Any, **options: Any) -> Any:
        record = await self._polos.wait(*args, **options)
        self.now -= 1
        return record


async def test_results_are_in_order_and_no_more_runs_than_wanted_are_under_way(
    polos: Polos, model: ModelServer
) -> None:
    model.says("yes", times=6)
    counting = Counting(polos)
    results = await agent.run_batch(counting, [f"number {n}" for n in range(6)], concurrency=2)
    asked = sorted(request.body["input"][0]["content"] for request in model.requests)

    assert [result.result for result in results] == ["yes"] * 6
    assert asked == [f"number {n}" for n in range(6)]
    assert (counting.now, counting.most) == (0, 2)
    assert await agent.run_batch(polos, []) == []


async def test_a_failure_is_raised_or_returned(polos: Polos, model: ModelServer) -> None:
    model.fails(401)
    model.says("yes")
    first, second = await agent.run_batch(polos, ["a", "b"], concurrency=1, return_exceptions=True)
    assert isinstance(first, RunFailedError)
    assert second.result == "yes"

    model.reset()
    model.fails(401, times=None)
    with pytest.raises(RunFailedError):
        await agent.run_batch(polos, ["a", "b", "c"], concurrency=1)
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    ("inputs", "options", "problem"),
    [
        ("one text", {}, "takes a list of inputs"),
        (["fine", 3], {}, "must be a text"),
        (["fine"], {"concurrency": 0}, "concurrency must be"),
    ],
)
async def test_bad_input_starts_nothing(
    polos: Polos, model: ModelServer, inputs: Any, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        await agent.run_batch(polos, inputs, **options)
    assert model.requests == []
