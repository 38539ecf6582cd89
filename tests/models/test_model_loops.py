"""Event loops, threads and what a call leaves behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop
from servers import (
    TEST_KEY,
    Answer,
    Recorder,
    anthropic_answer,
    chat_answer,
    responses_answer,
    responses_text,
)

from polos.models.call import close, generate
from polos.models.request import ModelRequest

HELLO = [{"role": "user", "content": "hello"}]


def _request(record: Recorder) -> ModelRequest:
    record.answers(Answer(responses_answer(responses_text("hi"))))
    return ModelRequest(provider="openai", model="m", messages=HELLO, provider_base_url=f"{record.url}/v1")


def test_one_loop_after_another(record: Recorder) -> None:
    request = _request(record)
    for _ in range(3):
        assert asyncio.run(generate(request)).content == "hi"


def test_uvloop(record: Recorder) -> None:
    assert uvloop.run(generate(_request(record))).content == "hi"


def test_two_loops_in_two_threads_at_once(record: Recorder) -> None:
    request = _request(record)
    barrier = threading.Barrier(2, timeout=10)

    def run() -> list[str | None]:
        async def calls() -> list[str | None]:
            barrier.wait()
            answers = await asyncio.gather(*(generate(request) for _ in range(10)))
            return [answer.content for answer in answers]

        return asyncio.run(calls())

    with ThreadPoolExecutor(2) as pool:
        results = [future.result(timeout=30) for future in [pool.submit(run) for _ in range(2)]]
    assert results == [["hi"] * 10] * 2


async def test_no_task_is_left_running(record: Recorder) -> None:
    for provider, path, body in [
        ("openai", "/v1", chat_answer("hi")),
        ("groq", "/v1", chat_answer("hi")),
        ("anthropic", "", anthropic_answer({"type": "text", "text": "hi"})),
    ]:
        record.answers(Answer(body))
        url = record.url + path
        api = "chat_completions"
        request = ModelRequest(
            provider=provider, model="m", messages=HELLO, provider_base_url=url, provider_llm_api=api
        )
        await generate(request)
        assert asyncio.all_tasks() == {asyncio.current_task()}, provider


async def test_connections_can_be_closed_and_are_opened_again(record: Recorder) -> None:
    request = _request(record)
    await generate(request)
    await close()
    assert (await generate(request)).content == "hi"


async def test_connections_are_kept_between_calls(record: Recorder) -> None:
    request = _request(record)
    ports: set[str] = set()
    record.answer = lambda seen: Answer(responses_answer(responses_text("hi")))
    for _ in range(3):
        await generate(request)
        ports.add(record.last.client)
    assert len(ports) == 1


async def test_a_cancelled_call_ends_at_once(record: Recorder) -> None:
    arrived, release = threading.Event(), threading.Event()

    def wait(_: object) -> Answer:
        arrived.set()
        release.wait(5)
        return Answer(responses_answer(responses_text("late")))

    request = _request(record)
    record.answer = wait
    task = asyncio.create_task(generate(request))
    async with asyncio.timeout(10):
        await asyncio.to_thread(arrived.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()


PROGRAM = """
    import asyncio, sys
    from polos.errors import ModelError
    from polos.models.call import generate
    from polos.models.request import ModelRequest
    assert "litellm" not in sys.modules
    url, provider = sys.argv[1:]
    request = ModelRequest(provider=provider, model="m", messages=[{"role": "user", "content": "x"}],
                           provider_base_url=url, provider_llm_api="chat_completions")
    try:
        print(asyncio.run(generate(request)).content)
    except ModelError as error:
        print(error.status_code)
"""


@pytest.mark.parametrize(
    ("provider", "status", "printed"), [("openai", 200, "hi\n"), ("anthropic", 500, "500\n")]
)
def test_a_program_that_makes_one_call_and_ends_prints_nothing_else(
    record: Recorder, provider: str, status: int, printed: str
) -> None:
    """No warning about unclosed sessions, destroyed tasks or anything LiteLLM likes to say."""
    body = chat_answer("hi") if provider == "openai" else anthropic_answer({"type": "text", "text": "hi"})
    record.answers(Answer(body, status=status))
    url = record.url + ("/v1" if provider == "openai" else "")
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", textwrap.dedent(PROGRAM), url, provider],
        env={**os.environ, "OPENAI_API_KEY": TEST_KEY, "ANTHROPIC_API_KEY": TEST_KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)
