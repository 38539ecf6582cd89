"""W7: words of a model until a reader in another process has them, and how many a second at full speed.

Each word is the time at which the model sent it: all processes of a machine share that clock.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Sequence

import httpx

from benchmarks.measuring import Bench, Figures, Goal, Result, measure, percentile
from benchmarks.programs import fast_speaker, script_of, steady_speaker
from polos import Agent
from polos.client import PolosClient

NAME = "w7"
TITLE = "words of streamed answers: latency at 20 a second each, and at full speed"
LATENCY_GOALS = {"p50_ms": Goal(3, 3, less=True), "p99_ms": Goal(15, 15, less=True)}
SPEED_GOALS = {"words_per_s": Goal(20_000, 20_000)}


async def run(bench: Bench) -> list[Result]:
    """Measure at a reader of the client's process."""
    results = []
    async with bench.polos(workers=1, models=True) as (client, meter):
        await _spoken(client, fast_speaker)  # what is loaded with the first call is loaded
        for streams, agent in (
            (1, steady_speaker),
            (bench.size(200, 50), steady_speaker),
            (20, fast_speaker),
        ):
            is_speed = agent is fast_speaker
            goals = SPEED_GOALS if is_speed else LATENCY_GOALS
            title = f"{streams} at full speed" if is_speed else f"{streams} at once"
            result = Result(NAME, title, bench.site.database, bench.quick, "stream", streams, goals)

            async def ours(
                streams: int = streams, agent: Agent = agent, is_speed: bool = is_speed
            ) -> Figures:
                return await _figures([_spoken(client, agent) for _ in range(streams)], is_speed=is_speed)

            async def floor(
                streams: int = streams, agent: Agent = agent, is_speed: bool = is_speed
            ) -> Figures:
                async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as http:
                    spoken = [_raw(http, bench.model_url, script_of(agent)) for _ in range(streams)]
                    return await _figures(spoken, is_speed=is_speed)

            await measure(bench, result, meter, ours, {"raw HTTP": floor})
            results.append(result)
    return results


async def _figures(spoken: Sequence[Awaitable[list[float]]], *, is_speed: bool) -> Figures:
    began = time.perf_counter()
    late = [seconds for each in await asyncio.gather(*spoken) for seconds in each]
    if is_speed:
        return {"words_per_s": len(late) / (time.perf_counter() - began)}
    return {f"p{percent}_ms": 1000 * percentile(late, percent) for percent in (50, 99)}


async def _spoken(client: PolosClient, agent: Agent) -> list[float]:
    """Return how late each word was at a reader of the stream, in seconds."""
    late = []
    stream = await agent.stream(client, "speak")
    async for piece in stream.text_chunks:
        now = time.monotonic()
        late += [now - float(word) for word in piece.split()]
    return late


async def _raw(http: httpx.AsyncClient, base_url: str, script: str) -> list[float]:
    """Return how late each word was at a reader of the model's own answer."""
    late = []
    body = {"model": "m", "stream": True, "messages": [{"role": "system", "content": script}]}
    async with http.stream("POST", f"{base_url}/chat/completions", json=body, timeout=600) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                delta = json.loads(line[6:])["choices"][0]["delta"]
                if "content" in delta:
                    late.append(time.monotonic() - float(delta["content"]))
    return late
