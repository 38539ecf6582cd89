"""What exactly goes over the wire, and how unusual answers are read."""

from __future__ import annotations

import gc
import socket
from typing import Any

import pytest
from servers import (
    TEST_KEY,
    Answer,
    Recorder,
    anthropic_answer,
    chat_answer,
    gemini_answer,
    responses_answer,
    responses_text,
)

from polos.errors import ModelError
from polos.models.anthropic import DEFAULT_MAX_TOKENS, UNKNOWN_MODEL_MAX_TOKENS
from polos.models.call import generate, preload
from polos.models.request import ModelAnswer, ModelRequest

TOOL = {
    "type": "function",
    "name": "f",
    "description": "d",
    "parameters": {"type": "object", "properties": {}},
}
HELLO = [{"role": "user", "content": "hello"}]
ODD = {"odd_option": {"a": 1}, "thinking": {"type": "enabled"}, "reasoning_effort": "low", "top_p": 0.1}


async def _ask(
    record: Recorder, provider: str, model: str, *, path: str = "/v1", **fields: Any
) -> ModelAnswer:
    fields.setdefault("messages", HELLO)
    return await generate(
        ModelRequest(provider=provider, model=model, provider_base_url=record.url + path, **fields)
    )


async def test_fireworks(record: Recorder) -> None:
    model = "accounts/fireworks/models/llama-v3p1-8b-instruct"
    answer = await _ask(record, "fireworks", model, tools=[TOOL], max_output_tokens=5, temperature=0.2)
    assert answer.content == "hello"
    assert record.last.path == "/v1/chat/completions"
    assert record.last.headers["authorization"] == f"Bearer {TEST_KEY}"
    assert record.last.body["model"] == model
    assert record.last.body["max_tokens"] == 5
    assert record.last.body["temperature"] == 0.2
    assert record.last.body["tools"][0]["function"]["name"] == "f"


async def test_azure(record: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_VERSION", "2024-10-21")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", record.url)
    request = ModelRequest(
        provider="azure", model="my-deployment", messages=HELLO, tools=[TOOL], idempotency_key="k1"
    )
    await generate(request)
    assert record.last.path == "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert record.last.headers["api-key"] == TEST_KEY
    assert record.last.headers["idempotency-key"] == "k1"
    assert record.last.body["tools"][0]["function"]["name"] == "f"


async def test_ollama(record: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    counts = {"prompt_eval_count": 5, "eval_count": 6}
    record.answers(
        Answer({"model": "llama3.1", "message": message, "done": True, "done_reason": "stop", **counts})
    )
    monkeypatch.setenv("OLLAMA_HOST", record.url.removeprefix("http://"))
    request = ModelRequest(
        provider="ollama",
        model="llama3.1",
        messages=HELLO,
        tools=[TOOL],
        max_output_tokens=5,
        provider_kwargs={"keep_alive": "5m", "temperature": 0.4},
    )
    answer = await generate(request)
    assert [seen.path for seen in record.seen] == ["/api/chat"]
    assert record.last.body["options"] == {"temperature": 0.4, "num_predict": 5}
    assert record.last.body["keep_alive"] == "5m"
    assert answer.tool_calls[0].function.arguments == '{"x": 1}'
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 6)
    assert answer.model == "llama3.1"


async def test_litellm_takes_the_full_model_name_and_its_own_options(record: Recorder) -> None:
    options = {"api_key": "other", "odd_option": 1, "extra_headers": {"x-team": "blue"}}
    await _ask(record, "litellm", "openai/some-model", provider_kwargs=options, temperature=0.5, tools=[TOOL])
    assert record.last.path == "/v1/chat/completions"
    assert record.last.headers["authorization"] == "Bearer other"
    assert record.last.headers["x-team"] == "blue"
    assert record.last.body["model"] == "some-model"
    assert record.last.body["odd_option"] == 1
    assert record.last.body["temperature"] == 0.5


@pytest.mark.parametrize(
    ("provider", "model", "llm_api", "path"),
    [
        ("openai", "gpt-5.4", "chat_completions", "/v1"),
        ("openai", "gpt-5.4", "responses", "/v1"),
        ("groq", "openai/gpt-oss-120b", None, "/v1"),
        ("together", "meta-llama/x", None, "/v1"),
        ("fireworks", "accounts/x", None, "/v1"),
        ("azure", "gpt-5", None, ""),
        ("anthropic", "claude-opus-4-8", None, ""),
    ],
)
async def test_any_keyword_reaches_the_provider_unchanged_and_wins(
    record: Recorder, provider: str, model: str, llm_api: str | None, path: str
) -> None:
    bodies = {"responses": responses_answer(responses_text("x")), None: chat_answer("x")}
    answer = anthropic_answer({"type": "text", "text": "x"}) if provider == "anthropic" else None
    record.answers(Answer(answer or bodies.get(llm_api) or chat_answer("x")))
    await _ask(record, provider, model, path=path, provider_llm_api=llm_api, provider_kwargs=ODD, top_p=0.9)
    assert {name: record.last.body.get(name) for name in ODD} == ODD


async def test_extra_body_and_extra_headers_are_understood_as_in_the_openai_client(record: Recorder) -> None:
    options = {"extra_body": {"odd_option": 1}, "extra_headers": {"x-team": "blue"}}
    await _ask(record, "groq", "m", provider_kwargs=options)
    assert record.last.body["odd_option"] == 1
    assert "extra_body" not in record.last.body
    assert record.last.headers["x-team"] == "blue"


async def test_gemini_options_are_placed_where_its_requests_have_them(record: Recorder) -> None:
    record.answers(Answer(gemini_answer({"text": "x"})))
    options = {"stop": ["end"], "top_p": 0.1, "generationConfig": {"seed": 4}, "odd_option": 1}
    await _ask(
        record,
        "gemini",
        "gemini-9-new",
        path="",
        provider_kwargs=options,
        system_prompt="sys",
        temperature=0.3,
    )
    body = record.last.body
    assert body["generationConfig"] == {
        "temperature": 0.3,
        "top_p": 0.1,
        "stop_sequences": ["end"],
        "seed": 4,
    }
    assert body["systemInstruction"] == {"parts": [{"text": "sys"}]}
    assert body["odd_option"] == 1


async def test_gemini_gets_its_thought_signature_back(record: Recorder) -> None:
    call = {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2lnbmF0dXJl"}
    record.answers(Answer(gemini_answer(call)), Answer(gemini_answer({"text": "done"})))
    first = await _ask(record, "gemini", "gemini-3-pro-preview", path="", tools=[TOOL])
    output = {"type": "function_call_output", "call_id": first.tool_calls[0].call_id, "output": "1"}
    conversation = [*HELLO, *first.raw_output, output]
    await _ask(record, "gemini", "gemini-3-pro-preview", path="", tools=[TOOL], messages=conversation)
    [part] = [part for part in record.last.body["contents"][1]["parts"] if "function_call" in part]
    assert part["thoughtSignature"] == "c2lnbmF0dXJl"


async def test_built_in_tools_go_out_unchanged(record: Recorder) -> None:
    built_in = {"type": "odd_tool_20990101", "name": "odd", "setting": 1}
    record.answers(Answer(anthropic_answer({"type": "text", "text": "x"})))
    await _ask(record, "anthropic", "claude-sonnet-4-6", path="", tools=[TOOL, built_in])
    assert built_in.items() <= record.last.body["tools"][-1].items()
    record.answers(Answer(gemini_answer({"text": "x"})))
    await _ask(record, "gemini", "gemini-2.5-flash", path="", tools=[TOOL, {"oddTool": {}}])
    assert record.last.body["tools"][-1] == {"oddTool": {}}
    record.answers(Answer(responses_answer(responses_text("x"))))
    await _ask(record, "openai", "gpt-4o", tools=[TOOL, {"type": "odd_tool"}])
    assert record.last.body["tools"][-1] == {"type": "odd_tool"}


async def test_the_idempotency_key_is_a_header(record: Recorder) -> None:
    for provider, path, body in [
        ("openai", "/v1", responses_answer(responses_text("x"))),
        ("anthropic", "", anthropic_answer({"type": "text", "text": "x"})),
        ("gemini", "", gemini_answer({"text": "x"})),
        ("groq", "/v1", chat_answer("x")),
    ]:
        record.answers(Answer(body))
        await _ask(record, provider, "m", path=path, idempotency_key="exec-1:step-2")
        assert record.last.headers["idempotency-key"] == "exec-1:step-2", provider


async def test_whether_to_stream_is_not_for_options_to_say(record: Recorder) -> None:
    await _ask(record, "groq", "m", provider_kwargs={"stream": True, "extra_body": {"stream": True}})
    assert "stream" not in record.last.body


async def test_litellms_own_retries_are_off(record: Recorder) -> None:
    """It gives the OpenAI client of some providers two more attempts after the client was made."""
    record.answers(Answer({"error": {"message": "busy"}}, status=500))
    with pytest.raises(ModelError):
        await _ask(record, "litellm", "nvidia_nim/m", provider_kwargs={"api_key": "k"})
    assert len(record.seen) == 1


@pytest.mark.parametrize("provider", ["openai", "groq", "together"])
async def test_reasoning_an_open_model_writes_before_its_answer_is_left_out(
    record: Recorder, provider: str
) -> None:
    record.answers(Answer(chat_answer("<think>hm</think>yes, <b>really</b>")))
    answer = await _ask(record, provider, "m", provider_llm_api="chat_completions")
    assert answer.content == "yes, <b>really</b>"
    record.answers(Answer(chat_answer("yes <think>hm</think>")))
    answer = await _ask(record, provider, "m", provider_llm_api="chat_completions")
    assert answer.content == "yes <think>hm</think>"


async def test_responses_takes_max_tokens_under_its_own_name(record: Recorder) -> None:
    record.answers(Answer(responses_answer(responses_text("x"))))
    await _ask(record, "openai", "gpt-4o", provider_kwargs={"max_tokens": 3}, max_output_tokens=9)
    assert record.last.body["max_output_tokens"] == 3
    assert "max_tokens" not in record.last.body


async def test_reasoning_goes_back_to_responses(record: Recorder) -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"}
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": ""}
    record.answers(Answer(responses_answer(reasoning, call)), Answer(responses_answer(responses_text("x"))))
    first = await _ask(record, "openai", "gpt-5", tools=[TOOL])
    assert record.last.body["include"] == ["reasoning.encrypted_content"]
    assert first.usage.cache_read_input_tokens == 4
    output = {"type": "function_call_output", "call_id": "c1", "output": "1"}
    await _ask(record, "openai", "gpt-5", tools=[TOOL], messages=[*HELLO, *first.raw_output, output])
    assert record.last.body["input"][1] == reasoning
    assert [item.get("type") for item in record.last.body["input"]] == [
        None,
        "reasoning",
        "function_call",
        "function_call_output",
    ]


async def test_a_failed_responses_answer_is_an_error(record: Recorder) -> None:
    error = {"code": "server_error", "message": "we broke"}
    record.answers(Answer(responses_answer(status="failed", error=error)))
    with pytest.raises(ModelError, match="we broke") as caught:
        await _ask(record, "openai", "gpt-4o")
    assert caught.value.retryable


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_without_responses_is_asked_for_chat_and_remembered(
    record: Recorder, status: int
) -> None:
    record.answer = lambda seen: (
        Answer({"detail": "Not Found"}, status=status)
        if seen.path == "/v1/responses"
        else Answer(chat_answer("hi"))
    )
    for _ in range(2):
        assert (await _ask(record, "openai", "local-model")).content == "hi"
    paths = [seen.path for seen in record.seen]
    assert paths == ["/v1/responses", "/v1/chat/completions", "/v1/chat/completions"]


async def test_anthropic_caches_the_prompt_the_last_tool_and_the_last_message(record: Recorder) -> None:
    record.answers(
        Answer(
            anthropic_answer(
                {"type": "text", "text": "x"}, cache_read_input_tokens=5, cache_creation_input_tokens=3
            )
        )
    )
    tools = [TOOL, {**TOOL, "name": "g"}]
    messages = [*HELLO, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "well"}]
    answer = await _ask(
        record, "anthropic", "claude-sonnet-4-6", path="", tools=tools, system_prompt="sys", messages=messages
    )
    body, here = record.last.body, {"type": "ephemeral"}
    assert body["system"] == [{"type": "text", "text": "sys", "cache_control": here}]
    assert [tool.get("cache_control") for tool in body["tools"]] == [None, here]
    assert body["messages"][-1]["content"] == [{"type": "text", "text": "well", "cache_control": here}]
    assert str(body).count("cache_control") == 3
    assert answer.usage.input_tokens == 11 + 5 + 3
    assert answer.usage.cache_read_input_tokens == 5
    assert answer.usage.cache_creation_input_tokens == 3
    assert record.last.headers["x-api-key"] == TEST_KEY


async def test_anthropic_gets_thinking_and_failed_tools_back(record: Recorder) -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    calls = [{"type": "tool_use", "id": f"toolu_{n}", "name": "f", "input": {}} for n in (1, 2)]
    record.answers(
        Answer(anthropic_answer(thinking, {"type": "text", "text": "let me"}, *calls, stop_reason="tool_use"))
    )
    first = await _ask(record, "anthropic", "claude-sonnet-4-6", path="", tools=[TOOL])
    assert first.content == "let me"
    assert [call.function.arguments for call in first.tool_calls] == ["{}", "{}"]
    outputs = [
        {"type": "function_call_output", "call_id": "toolu_1", "output": "1"},
        {"type": "function_call_output", "call_id": "toolu_2", "output": "Error: no", "is_error": True},
    ]
    messages = [*HELLO, *first.raw_output, *outputs]
    await _ask(record, "anthropic", "claude-sonnet-4-6", path="", tools=[TOOL], messages=messages)
    _, assistant, results = record.last.body["messages"]
    assert [block["type"] for block in assistant["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert assistant["content"][0] == thinking
    assert [block.get("is_error") for block in results["content"]] == [None, True]


async def test_a_pause_of_anthropics_own_tools_is_told(record: Recorder) -> None:
    record.answers(Answer(anthropic_answer({"type": "text", "text": "so far"}, stop_reason="pause_turn")))
    answer = await _ask(record, "anthropic", "claude-sonnet-4-6", path="")
    assert (answer.content, answer.stop_reason) == ("so far", "pause_turn")
    assert answer.raw_output == [{"role": "assistant", "content": "so far"}]


async def test_a_tool_anthropic_runs_itself_is_no_call_of_ours_and_goes_back_with_its_result(
    record: Recorder,
) -> None:
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    record.answers(Answer(anthropic_answer(search, found, {"type": "text", "text": "it is so"})))
    tool = {"type": "web_search_20250305", "name": "web_search"}
    first = await _ask(record, "anthropic", "claude-sonnet-4-6", path="", tools=[tool])
    assert first.content == "it is so"
    assert first.tool_calls == []
    messages = [*HELLO, *first.raw_output, {"role": "user", "content": "really?"}]
    await _ask(record, "anthropic", "claude-sonnet-4-6", path="", tools=[tool], messages=messages)
    assistant = record.last.body["messages"][1]["content"]
    assert {"server_tool_use", "web_search_tool_result", "text"} == {block["type"] for block in assistant}


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("claude-sonnet-4-6", {}, DEFAULT_MAX_TOKENS),
        ("claude-3-haiku-20240307", {}, 4096),
        ("claude-of-the-future", {}, UNKNOWN_MODEL_MAX_TOKENS),
        (
            "claude-sonnet-4-6",
            {"thinking": {"type": "enabled", "budget_tokens": 30_000}},
            DEFAULT_MAX_TOKENS + 30_000,
        ),
        ("claude-sonnet-4-6", {"max_tokens": 77}, 77),
    ],
)
async def test_anthropic_always_gets_a_token_limit(
    record: Recorder, model: str, options: dict[str, Any], expected: int
) -> None:
    record.answers(Answer(anthropic_answer({"type": "text", "text": "x"})))
    await _ask(record, "anthropic", model, path="", provider_kwargs=options)
    assert record.last.body["max_tokens"] == expected


@pytest.mark.parametrize(
    "provider", ["openai", "openai chat", "groq", "anthropic", "gemini", "ollama", "litellm"]
)
@pytest.mark.parametrize(
    "broken",
    [
        Answer(b"<html>oops</html>"),
        Answer(b'{"choices": [{"mess'),
        Answer(b"[]"),
        Answer({"unexpected": True}),
    ],
    ids=["html", "cut json", "list", "other"],
)
async def test_an_answer_that_is_nonsense_may_be_asked_for_again(
    record: Recorder, provider: str, broken: Answer
) -> None:
    record.answers(broken)
    with pytest.raises(ModelError) as caught:
        await _ask_any(record, provider)
    assert caught.value.retryable, caught.value
    assert len(record.seen) == 1


@pytest.mark.parametrize(
    "provider", ["openai", "openai chat", "groq", "anthropic", "gemini", "ollama", "litellm"]
)
async def test_a_cut_connection_is_not_tried_again_by_us(record: Recorder, provider: str) -> None:
    record.answers(Answer(cut=True))
    with pytest.raises(ModelError, match="connection") as caught:
        await _ask_any(record, provider)
    assert caught.value.retryable
    assert len(record.seen) == 1


@pytest.mark.parametrize("provider", ["openai", "openai chat", "anthropic", "gemini"])
async def test_a_server_that_is_not_there_may_be_asked_again(
    keys: None, litellm_loaded: None, provider: str
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        record = Recorder()
        record.url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ModelError, match="base URL") as caught:
            await _ask_any(record, provider)
    assert caught.value.retryable


@pytest.mark.parametrize("provider", ["openai", "openai chat", "anthropic"])
async def test_a_base_url_without_scheme_is_a_final_error(
    keys: None, litellm_loaded: None, provider: str
) -> None:
    record = Recorder()
    record.url = "localhost"
    with pytest.raises(ModelError, match="base URL") as caught:
        await _ask_any(record, provider)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("openai", responses_answer()),
        ("openai chat", chat_answer("")),
        ("anthropic", anthropic_answer()),
        ("gemini", gemini_answer({"text": ""})),
    ],
)
async def test_an_empty_answer_is_an_error_that_may_go_away(
    record: Recorder, provider: str, body: dict[str, Any]
) -> None:
    record.answers(Answer(body))
    with pytest.raises(ModelError, match="empty answer") as caught:
        await _ask_any(record, provider)
    assert caught.value.retryable


async def _ask_any(record: Recorder, provider: str) -> ModelAnswer:
    """Ask with the model and the path each provider wants."""
    name, _, chat = provider.partition(" ")
    model = {"litellm": "openai/m", "gemini": "gemini-2.5-flash", "anthropic": "claude-sonnet-4-6"}.get(
        name, "m"
    )
    path = "" if name in ("anthropic", "gemini", "ollama") else "/v1"
    llm_api = "chat_completions" if chat else None
    return await _ask(record, name, model, path=path, provider_llm_api=llm_api)


async def test_a_call_made_while_handling_an_error_is_judged_by_its_own(record: Recorder) -> None:
    record.answers(Answer({"error": {"message": "no"}}, status=401), Answer(cut=True))
    try:
        await _ask_any(record, "openai")
    except ModelError:
        with pytest.raises(ModelError, match="connection") as caught:
            await _ask_any(record, "openai")
    assert caught.value.retryable


def test_what_litellm_brings_is_left_out_of_collections() -> None:
    """It is most of a process, never garbage, and walking over it at the end takes longer than a second."""
    preload()
    assert gc.get_freeze_count() > 100_000
