"""Answers as providers send them whole and in pieces: both are read as the same."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from servers import (
    Answer,
    Recorder,
    anthropic_answer,
    chat_answer,
    gemini_answer,
    responses_answer,
    responses_text,
)
from test_model_streams import Chunks, comparable

from polos.models.call import generate
from polos.models.request import ModelRequest

TOOL = {
    "type": "function",
    "name": "f",
    "description": "d",
    "parameters": {"type": "object", "properties": {}},
}


@dataclass(frozen=True)
class Twin:
    """A whole answer, and what a provider would have sent instead to a request for a stream."""

    provider: str
    whole: Any
    pieces: list[Any]
    path: str = "/v1"
    fields: dict[str, Any] = field(default_factory=dict)


def sse(*events: Any, done: bool = False) -> list[bytes]:
    frames = [b"data: %b\n\n" % json.dumps(event).encode() for event in events]
    return [*frames, b"data: [DONE]\n\n"] if done else frames


def chat_pieces(*deltas: Any, finish: str = "stop", usage: Any = None) -> list[bytes]:
    """A streamed chat completion: a chunk for each delta, one to finish, one with the usage."""
    fixed = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "the-model"}
    chunks = [
        {**fixed, "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None}
        for delta in deltas
    ]
    last = {**fixed, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}], "usage": None}
    counts = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, **(usage or {})}
    return sse(*chunks, last, {**fixed, "choices": [], "usage": counts}, done=True)


def call_delta(index: int | None, call_id: str | None, name: str | None, arguments: str | None) -> Any:
    call: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    if index is not None:
        call["index"] = index
    if call_id is not None:
        call |= {"id": call_id, "type": "function"}
    return {"tool_calls": [call]}


def chat_call(call_id: str | None, arguments: str, name: str = "f") -> Any:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def chat_with(**fields: Any) -> dict[str, Any]:
    answer = chat_answer("hello you")
    answer["choices"][0]["message"] |= fields
    return answer


CACHED = {"prompt_tokens_details": {"cached_tokens": 4}}
TWO_CALLS = chat_answer(None, [chat_call("a", '{"x": 1}'), chat_call("b", '{"y": 2}')])
NO_ARGUMENTS = chat_answer("so", [chat_call("a", ""), chat_call("b", "{}")])
CHAT = {
    "cached tokens": Twin(
        "openai chat",
        chat_answer("hello you", **CACHED),
        chat_pieces(
            {"role": "assistant", "content": ""}, {"content": "hello "}, {"content": "you"}, usage=CACHED
        ),
    ),
    "a first chunk without choices, as azure sends it": Twin(
        "azure",
        chat_answer("hello you"),
        [
            *sse({"id": "", "model": "", "choices": [], "prompt_filter_results": []}),
            *chat_pieces({"content": "hello "}, {"content": "you"}),
        ],
        path="",
    ),
    "reasoning in a field": Twin(
        "groq",
        chat_with(reasoning="well well"),
        chat_pieces(
            {"role": "assistant", "reasoning": "well ", "channel": "analysis"},
            {"reasoning": "well", "channel": "analysis"},
            {"content": "hello "},
            {"content": "you"},
        ),
    ),
    "reasoning details, sent back to openrouter": Twin(
        "openai chat",
        chat_with(
            reasoning_details=[
                {"type": "reasoning.text", "text": "well well", "index": 0, "format": "x", "signature": "sig"}
            ]
        ),
        chat_pieces(
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "well ", "index": 0, "format": "x", "signature": None}
                ]
            },
            {"reasoning_details": [{"type": "reasoning.text", "text": "well", "index": 0, "format": "x"}]},
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "signature": "sig", "index": 0, "format": "x"}
                ]
            },
            {"content": "hello you"},
        ),
    ),
    "thinking blocks with signatures": Twin(
        "openai chat",
        chat_with(
            thinking_blocks=[
                {"type": "thinking", "thinking": "well well", "signature": "s1"},
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "thinking", "thinking": "then", "signature": "s2"},
            ]
        ),
        chat_pieces(
            {"thinking_blocks": [{"type": "thinking", "thinking": "well ", "signature": None}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "well", "signature": None}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "s1"}]},
            {"thinking_blocks": [{"type": "redacted_thinking", "data": "xyz"}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "then", "signature": "s2"}]},
            {"content": "hello you"},
        ),
    ),
    "reasoning between tags": Twin(
        "groq",
        chat_answer("<think>well well</think>hello <b>you</b>"),
        chat_pieces(
            *({"content": text} for text in ("<th", "ink>well ", "well</thi", "nk>hel", "lo <b>you", "</b>"))
        ),
    ),
    "a tag that is never closed": Twin(
        "groq", chat_answer("<think>well"), chat_pieces({"content": "<think>"}, {"content": "well"})
    ),
    "what only looks like a tag": Twin(
        "groq", chat_answer("<the end>"), chat_pieces({"content": "<th"}, {"content": "e end>"})
    ),
    "two calls": Twin(
        "openai chat",
        TWO_CALLS,
        chat_pieces(
            call_delta(0, "a", "f", ""),
            call_delta(0, None, None, '{"x"'),
            call_delta(0, None, None, ": 1}"),
            call_delta(1, "b", "f", ""),
            call_delta(1, None, None, '{"y": 2}'),
            finish="tool_calls",
        ),
    ),
    "two calls that take turns": Twin(
        "together",
        TWO_CALLS,
        chat_pieces(
            call_delta(0, "a", "f", '{"x"'),
            call_delta(1, "b", "f", '{"y"'),
            call_delta(0, None, None, ": 1}"),
            call_delta(1, None, None, ": 2}"),
            finish="tool_calls",
        ),
    ),
    "two calls with one index": Twin(
        "openai chat",
        TWO_CALLS,
        chat_pieces(
            call_delta(0, "a", "f", '{"x": 1}'), call_delta(0, "b", "f", '{"y": 2}'), finish="tool_calls"
        ),
    ),
    "two whole calls without index and id": Twin(
        "fireworks",
        chat_answer(None, [chat_call(None, '{"x": 1}'), chat_call(None, '{"y": 2}')]),
        chat_pieces(
            call_delta(None, None, "f", '{"x": 1}'),
            call_delta(None, None, "f", '{"y": 2}'),
            finish="tool_calls",
        ),
    ),
    "id and name in every piece": Twin(
        "openai chat",
        TWO_CALLS,
        chat_pieces(
            call_delta(0, "a", "f", '{"x"'),
            call_delta(0, "a", "f", ": 1}"),
            call_delta(0, "a", "f", ""),
            call_delta(1, "b", "f", '{"y": 2}'),
            finish="tool_calls",
        ),
    ),
    "calls without arguments": Twin(
        "openai chat",
        NO_ARGUMENTS,
        chat_pieces(
            {"content": "so"}, call_delta(0, "a", "f", ""), call_delta(1, "b", "f", "{}"), finish="stop"
        ),
    ),
    "two calls with one id": Twin(
        "openai chat",
        chat_answer(None, [chat_call("a", '{"x": 1}'), chat_call("a", '{"y": 2}')]),
        chat_pieces(
            call_delta(0, "a", "f", '{"x": 1}'), call_delta(1, "a", "f", '{"y": 2}'), finish="tool_calls"
        ),
    ),
    "arguments that are no JSON": Twin(
        "openai chat",
        chat_answer(None, [chat_call("a", '{"x": ')]),
        chat_pieces(call_delta(0, "a", "f", '{"x": '), finish="tool_calls"),
    ),
    "what a call wants sent back": Twin(
        "openai chat",
        chat_answer(None, [{**chat_call("a", "{}"), "provider_specific_fields": {"thought_signature": "s"}}]),
        chat_pieces(
            {
                "tool_calls": [
                    {
                        **chat_call("a", "{}"),
                        "index": 0,
                        "provider_specific_fields": {"thought_signature": "s"},
                    }
                ]
            },
            finish="tool_calls",
        ),
    ),
    "an emoji in halves": Twin(
        "groq",
        chat_answer("so \U0001f600!"),
        chat_pieces({"content": "so \ud83d"}, {"content": "\ude00!"}),
    ),
    "an answer that was cut by its limit": Twin(
        "openai chat",
        {
            **chat_answer("hello"),
            "choices": [{**chat_answer("hello")["choices"][0], "finish_reason": "length"}],
        },
        chat_pieces({"content": "hello"}, finish="length"),
    ),
    "no [DONE], lines that end in CRLF, comments": Twin(
        "openai chat",
        chat_answer("hello you"),
        [
            b": keep-alive\r\n\r\n",
            *(
                piece.replace(b"\n\n", b"\r\n\r\n").replace(b"data: ", b"event: x\r\nid: 1\r\ndata:")
                for piece in chat_pieces({"content": "hello "}, {"content": "you"})[:-1]
            ),
        ],
    ),
}


def anthropic_pieces(*blocks: Any, stop_reason: str = "end_turn", **usage: Any) -> list[bytes]:
    """A streamed Anthropic message; each block is its start followed by its deltas."""
    message = {**anthropic_answer(), "stop_reason": None}
    message["usage"] = {"input_tokens": 11, "output_tokens": 1, **usage}
    events: list[Any] = [{"type": "message_start", "message": message}, {"type": "ping"}]
    for index, (start, *deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    stop = {"stop_reason": stop_reason, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 7}})
    return sse(*events, {"type": "message_stop"})


def text_delta(text: str) -> Any:
    return {"type": "text_delta", "text": text}


def json_delta(text: str) -> Any:
    return {"type": "input_json_delta", "partial_json": text}


NO_TEXT = {"type": "text", "text": ""}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
CITATION = {"type": "char_location", "cited_text": "x", "document_index": 0, "document_title": "t"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {
            "type": "web_search_result",
            "url": "http://x",
            "title": "t",
            "encrypted_content": "abc",
            "page_age": None,
        }
    ],
}
ANTHROPIC = {
    "thinking, text, calls and cached tokens": Twin(
        "anthropic",
        anthropic_answer(
            {"type": "thinking", "thinking": "well well", "signature": "sig"},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "text", "text": "hello you"},
            {**CALL, "input": {"x": "é"}},
            {**CALL, "id": "toolu_2"},
            stop_reason="tool_use",
            cache_read_input_tokens=5,
            cache_creation_input_tokens=3,
        ),
        anthropic_pieces(
            (
                {"type": "thinking", "thinking": "", "signature": ""},
                {"type": "thinking_delta", "thinking": "well "},
                {"type": "thinking_delta", "thinking": "well"},
                {"type": "signature_delta", "signature": "sig"},
            ),
            ({"type": "redacted_thinking", "data": "xyz"},),
            (NO_TEXT, text_delta("hello "), text_delta("you")),
            (CALL, json_delta(""), json_delta('{"x":'), json_delta('"é"}')),
            ({**CALL, "id": "toolu_2"}, json_delta("")),
            stop_reason="tool_use",
            cache_read_input_tokens=5,
            cache_creation_input_tokens=3,
        ),
        path="",
    ),
    "tools the provider runs itself": Twin(
        "anthropic",
        anthropic_answer(
            {"type": "text", "text": "let me "},
            {**SEARCH, "input": {"query": "x"}},
            FOUND,
            {"type": "text", "text": "see"},
            {**CALL, "input": {"x": 1}},
            stop_reason="tool_use",
        ),
        anthropic_pieces(
            (NO_TEXT, text_delta("let me ")),
            (SEARCH, json_delta('{"query"'), json_delta(': "x"}')),
            (FOUND,),
            (NO_TEXT, text_delta("see")),
            (CALL, json_delta('{"x": 1}')),
            stop_reason="tool_use",
        ),
        path="",
    ),
    "citations between texts": Twin(
        "anthropic",
        anthropic_answer(
            {"type": "text", "text": "so "}, {"type": "text", "text": "it is", "citations": [CITATION]}
        ),
        anthropic_pieces(
            (NO_TEXT, text_delta("so ")),
            (
                {**NO_TEXT, "citations": []},
                {"type": "citations_delta", "citation": CITATION},
                text_delta("it is"),
            ),
        ),
        path="",
    ),
    "blocks whose end is not said": Twin(
        "anthropic",
        anthropic_answer({"type": "text", "text": "hello"}),
        [
            piece
            for piece in anthropic_pieces((NO_TEXT, text_delta("hel"), text_delta("lo")))
            if b"block_stop" not in piece
        ],
        path="",
    ),
    "arguments that are no JSON": Twin(
        "anthropic",
        anthropic_answer({**CALL, "input": {"INVALID_JSON": '{"x": '}}, stop_reason="max_tokens"),
        anthropic_pieces((CALL, json_delta('{"x"'), json_delta(": ")), stop_reason="max_tokens"),
        path="",
    ),
}


def gemini_pieces(*groups: list[Any]) -> list[bytes]:
    """A streamed Gemini answer; each group is the parts of one event."""
    events = []
    for group in groups:
        event = gemini_answer(*group)
        del event["candidates"][0]["finishReason"]
        events.append({**event, "usageMetadata": {"promptTokenCount": 11, "totalTokenCount": 11}})
    events[-1] = gemini_answer(*groups[-1])
    return sse(*events)


GEMINI = {
    "thoughts, text and calls": Twin(
        "gemini",
        gemini_answer(
            {"text": "well well", "thought": True},
            {"text": "hello you"},
            {"functionCall": {"name": "f", "args": {"x": "é"}}, "thoughtSignature": "c2ln"},
            {"functionCall": {"name": "f", "args": {}}},
        ),
        gemini_pieces(
            [{"text": "well ", "thought": True}],
            [{"text": "well", "thought": True}, {"text": "hello "}],
            [{"text": "you"}],
            [{"functionCall": {"name": "f", "args": {"x": "é"}}, "thoughtSignature": "c2ln"}],
            [{"functionCall": {"name": "f"}}],
            [{"text": ""}],
        ),
        path="",
        fields={"model": "gemini-3-pro-preview"},
    ),
    "a signature at the end of a text": Twin(
        "gemini",
        gemini_answer({"text": "hello you", "thoughtSignature": "c2ln"}),
        gemini_pieces([{"text": "hello "}], [{"text": "you"}], [{"text": "", "thoughtSignature": "c2ln"}]),
        path="",
        fields={"model": "gemini-3-pro-preview"},
    ),
}

REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"}
FUNCTION = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'}
WHOLE_RESPONSE = responses_answer(
    REASONING,
    responses_text("hello you"),
    {**responses_text("and more"), "id": "msg_2"},
    {**FUNCTION, "status": "completed"},
    {**FUNCTION, "id": "fc_2", "call_id": "c2", "arguments": ""},
)


def responses_pieces(response: dict[str, Any], *, ending: str = "completed") -> list[bytes]:
    """A streamed OpenAI response, with its texts in pieces."""
    empty = {**response, "output": [], "usage": None, "status": "in_progress"}
    events: list[Any] = [{"type": "response.created", "response": empty}]
    for index, item in enumerate(response["output"]):
        events.append({"type": "response.output_item.added", "output_index": index, "item": item})
        if item["type"] == "message":
            text = item["content"][0]["text"]
            kind = "response.output_text.delta"
            events += [
                {"type": kind, "output_index": index, "delta": part} for part in (text[:4], text[4:], "")
            ]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    return sse(*events, {"type": f"response.{ending}", "response": response})


INCOMPLETE = responses_answer(
    responses_text("hello"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}
)
OUTPUT_LEFT_OUT = [
    *responses_pieces(WHOLE_RESPONSE)[:-1],
    *sse({"type": "response.completed", "response": {**WHOLE_RESPONSE, "output": []}}),
]
RESPONSES = {
    "reasoning, two messages and calls": Twin("openai", WHOLE_RESPONSE, responses_pieces(WHOLE_RESPONSE)),
    "an answer that was cut by its limit": Twin(
        "openai", INCOMPLETE, responses_pieces(INCOMPLETE, ending="incomplete")
    ),
    "items the last event leaves out": Twin("openai", WHOLE_RESPONSE, OUTPUT_LEFT_OUT),
}


def _line(message: Any, **fields: Any) -> bytes:
    return json.dumps({"model": "m", "done": False, **fields, "message": message}).encode() + b"\n"


OLLAMA_END = {"done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 6}
OLLAMA_CALL = {"function": {"name": "f", "arguments": {"x": "é"}}}
OLLAMA = {
    "thinking, text and calls": Twin(
        "ollama",
        {
            "model": "m",
            "message": {
                "role": "assistant",
                "content": "hello you",
                "thinking": "well well",
                "tool_calls": [OLLAMA_CALL, OLLAMA_CALL],
            },
            **OLLAMA_END,
        },
        [
            _line({"role": "assistant", "content": "", "thinking": "well "}),
            _line({"role": "assistant", "content": "", "thinking": "well"}),
            _line({"role": "assistant", "content": "hello "}),
            _line({"role": "assistant", "content": "you"}),
            _line({"role": "assistant", "content": "", "tool_calls": [OLLAMA_CALL]}),
            _line({"role": "assistant", "content": "", "tool_calls": [OLLAMA_CALL]}),
            _line({"role": "assistant", "content": ""}, **OLLAMA_END),
        ],
        path="",
    ),
    "reasoning between tags": Twin(
        "ollama",
        {"model": "m", "message": {"role": "assistant", "content": "<think>a</think>b"}, **OLLAMA_END},
        [
            _line({"role": "assistant", "content": "<think>"}),
            _line({"role": "assistant", "content": "a</think>b"}),
            _line({"role": "assistant", "content": ""}, **OLLAMA_END),
        ],
        path="",
    ),
}
TWINS = {
    f"{wire}: {name}": twin
    for wire, twins in {
        "chat": CHAT,
        "anthropic": ANTHROPIC,
        "gemini": GEMINI,
        "responses": RESPONSES,
        "ollama": OLLAMA,
    }.items()
    for name, twin in twins.items()
}


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
async def test_a_streamed_answer_is_read_like_a_whole_one(record: Recorder, twin: Twin) -> None:
    record.answer = lambda seen: (
        Answer(pieces=twin.pieces) if _asks_for_a_stream(seen.path, seen.body) else Answer(twin.whole)
    )
    request = make_request(record, twin.provider, path=twin.path, **twin.fields)
    plain = await generate(request)
    chunks = Chunks()
    streamed = await generate(request, on_chunk=chunks.append)
    assert comparable(streamed) == comparable(plain)
    assert chunks.text == (streamed.content or "")
    assert chunks.tool_calls == streamed.tool_calls
    assert len({call.call_id for call in streamed.tool_calls}) == len(streamed.tool_calls)
    assert len(record.seen) == 2


def make_request(record: Recorder, provider: str, *, path: str = "/v1", **fields: Any) -> ModelRequest:
    name, _, chat = provider.partition(" ")
    model = {"gemini": "gemini-2.5-flash", "anthropic": "claude-sonnet-4-6", "ollama": "llama3.1"}.get(
        name, "m"
    )
    known = {
        "provider": name,
        "model": model,
        "messages": [{"role": "user", "content": "hello"}],
        "provider_llm_api": "chat_completions" if chat else None,
        "provider_base_url": record.url + path,
        "tools": [TOOL],
    }
    return ModelRequest(**{**known, **fields})


def _asks_for_a_stream(path: str, body: Any) -> bool:
    return bool(body.get("stream")) or "streamGenerateContent?alt=sse" in path
