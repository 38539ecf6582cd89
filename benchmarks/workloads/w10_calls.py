"""W10: CPU time of a model call in the process that makes it, one after another, over real HTTP."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from benchmarks.floors.calls import BODY, LiteLLMCalls, RawCalls
from benchmarks.measuring import Bench, Figures, Goal, Result
from polos.models import call as models
from polos.models.request import ModelRequest

NAME = "w10"
TITLE = "a model call, by itself"
GOALS = {"cpu_ms": Goal(1.5, 1.5, less=True)}


async def run(bench: Bench) -> list[Result]:
    """Measure once: no database takes part."""
    if bench.site.database != "sqlite":
        return []
    calls = bench.size(500, 50)
    result = Result(NAME, "chat completions", bench.site.database, bench.quick, "call", calls, GOALS)
    floors: dict[str, Any] = {"raw HTTP": RawCalls(bench.model_url), "LiteLLM": LiteLLMCalls(bench.model_url)}
    ours = partial(models.generate, _request(bench.model_url))
    for once in (*floors.values(), ours):
        await once()  # imports and connects
    for _ in range(bench.repeats):
        for name, floor in floors.items():
            result.floors.setdefault(name, []).append(await _measured(floor, calls))
        result.polos.append(await _measured(ours, calls))
    for floor in floors.values():
        await floor.close()
    await models.close()
    return [result]


def _request(url: str) -> ModelRequest:
    system, user = BODY["messages"]
    return ModelRequest(
        provider="openai",
        model=BODY["model"],
        messages=[user],
        system_prompt=system["content"],
        provider_base_url=url,
        provider_llm_api="chat_completions",
        provider_kwargs={"api_key": "none"},
    )


async def _measured(once: Callable[[], Awaitable[Any]], calls: int) -> Figures:
    began = time.process_time()
    for _ in range(calls):
        await once()
    return {"cpu_ms": (time.process_time() - began) / calls * 1000}
