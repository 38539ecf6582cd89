"""The canonical conversation as chat messages and as OpenAI Responses input."""

from __future__ import annotations

from typing import Any

import pytest
from servers import chat_answer, responses_answer, responses_text

from polos.models.answers import CallIds, from_chat, from_responses
from polos.models.messages import chat_messages, chat_tools, responses_input, responses_tools
from polos.models.request import ModelAnswer, ModelRequest

CALL_A = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
CALL_B = {"type": "function_call", "call_id": "b", "name": "g", "arguments": '{"x": 1}'}
OUTPUT_A = {"type": "function_call_output", "call_id": "a", "output": "1"}
OUTPUT_B = {"type": "function_call_output", "call_id": "b", "output": "2"}
PIXEL = "data:image/png;base64,AAAA"


def test_text_and_parallel_calls_become_one_assistant_message() -> None:
    text = {"role": "assistant", "content": "wait"}
    user = {"role": "user", "content": "hi"}
    messages = chat_messages([user, text, CALL_A, CALL_B, OUTPUT_A, OUTPUT_B], system_prompt="be nice")
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "tool"]
    assert messages[2]["content"] == "wait"
    assert [call["id"] for call in messages[2]["tool_calls"]] == ["a", "b"]
    assert [message["tool_call_id"] for message in messages[3:]] == ["a", "b"]


def test_calls_answered_one_by_one_stay_separate() -> None:
    roles = [message["role"] for message in chat_messages([CALL_A, OUTPUT_A, CALL_B, OUTPUT_B])]
    assert roles == ["assistant", "tool", "assistant", "tool"]


def test_thinking_goes_back_on_the_message_it_belongs_to() -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
    [message] = chat_messages([{"type": "reasoning", "thinking_blocks": blocks}, CALL_A])
    assert message["thinking_blocks"] == blocks
    assert message["tool_calls"][0]["id"] == "a"


def test_the_conversation_is_not_changed_by_converting_it() -> None:
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "thinking_blocks": [{"type": "thinking"}]},
        {"type": "reasoning", "thinking_blocks": [{"type": "thinking"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "x"}]},
    ]
    copy = [{**item} for item in items]
    chat_messages(items)
    chat_messages(items)
    assert items == copy
    assert len(items[0]["thinking_blocks"]) == 1


def test_items_only_responses_knows_are_left_out_of_chat() -> None:
    items = [{"type": "web_search_call", "id": "ws"}, {"type": "reasoning", "id": "rs", "summary": []}]
    assert chat_messages(items) == []


def test_reasoning_and_built_in_items_go_back_to_responses_unchanged() -> None:
    items = [{"type": "web_search_call", "id": "ws"}, {"type": "reasoning", "id": "rs", "summary": []}]
    assert responses_input(items) == items


def test_another_providers_thinking_is_not_sent_to_responses() -> None:
    assert responses_input([{"type": "reasoning", "thinking_blocks": []}]) == []


def test_item_ids_are_not_sent_to_responses_which_may_not_have_stored_them() -> None:
    [call] = responses_input([{**CALL_A, "id": "fc_1"}])
    assert call == CALL_A


@pytest.mark.parametrize(
    "block",
    [
        {"type": "input_image", "image_url": PIXEL},
        {"type": "image_url", "image_url": {"url": PIXEL}},
        {"type": "image_url", "image_url": PIXEL},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": PIXEL}},
    ],
)
def test_an_image_in_any_style_reaches_both_apis(block: dict[str, Any]) -> None:
    items = [{"role": "user", "content": [{"type": "input_text", "text": "what?"}, block]}]
    assert chat_messages(items)[0]["content"] == [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": PIXEL}},
    ]
    assert responses_input(items)[0]["content"] == [
        {"type": "input_text", "text": "what?"},
        {"type": "input_image", "image_url": PIXEL, "detail": "auto"},
    ]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}},
    ],
)
def test_a_file_in_any_style_reaches_both_apis(block: dict[str, Any]) -> None:
    file = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}
    items = [{"role": "user", "content": [block]}]
    assert chat_messages(items)[0]["content"] == [{"type": "file", "file": file}]
    assert responses_input(items)[0]["content"] == [{"type": "input_file", **file}]


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"type": "image_url"}, "'image_url' is not complete"),
        ({"type": "image", "source": {"type": "base64"}}, "'image' is not complete"),
        (7, "must be a text or an object"),
        (None, "must be a text or an object"),
    ],
)
def test_a_block_that_is_none_says_what_it_lacks(block: Any, says: str) -> None:
    items = [{"role": "user", "content": [block]}]
    with pytest.raises(ValueError, match=says):
        chat_messages(items)
    with pytest.raises(ValueError, match=says):
        responses_input(items)


def test_a_message_without_a_role_is_named() -> None:
    with pytest.raises(ValueError, match="must have a role"):
        chat_messages([{"content": "x"}])
    with pytest.raises(ValueError, match="must have a role"):
        responses_input([{"content": "x"}])


def test_an_assistants_blocks_are_output_text_in_responses() -> None:
    items = [{"role": "assistant", "content": [{"type": "text", "text": "hi"}]}]
    assert responses_input(items)[0]["content"] == [{"type": "output_text", "text": "hi"}]


def test_tools_are_nested_for_chat_and_flat_for_responses() -> None:
    flat = {"type": "function", "name": "f", "description": "d", "parameters": {}}
    nested = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
    built_in = {"type": "web_search"}
    assert chat_tools([flat, nested, built_in]) == [nested, nested, built_in]
    assert responses_tools([flat, nested, built_in]) == [{**flat, "strict": False}] * 2 + [built_in]


def test_strict_tools_stay_strict() -> None:
    assert responses_tools([{"type": "function", "name": "f", "strict": True}])[0]["strict"] is True


def _chat_call(call_id: str | None, arguments: str | None = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}}


def _ids(answer: ModelAnswer) -> list[str | None]:
    return [call.call_id for call in answer.tool_calls]


def test_missing_and_repeated_call_ids_are_replaced_by_unique_ones() -> None:
    body = chat_answer(None, [_chat_call("x"), _chat_call("x"), _chat_call(""), _chat_call("used")])
    ids = _ids(from_chat(body, CallIds({"used"})))
    assert ids[0] == "x"
    assert len({*ids, "used"}) == 5
    assert all(ids)


def test_raw_output_carries_the_same_ids_as_the_tool_calls() -> None:
    answer = from_chat(chat_answer(None, [_chat_call(None)]), CallIds(()))
    assert [item["call_id"] for item in answer.raw_output] == _ids(answer)


@pytest.mark.parametrize("arguments", ["", None])
def test_a_call_without_arguments_has_an_empty_object(arguments: str | None) -> None:
    answer = from_chat(chat_answer(None, [_chat_call("x", arguments)]), CallIds(()))
    assert answer.tool_calls[0].function.arguments == "{}"
    item = {"type": "function_call", "call_id": "y", "id": "fc", "name": "f", "arguments": arguments}
    answer = from_responses(responses_answer(item), CallIds(()))
    assert answer.tool_calls[0].function.arguments == "{}"


def test_geminis_signature_stays_out_of_the_call_id() -> None:
    call = {
        **_chat_call("call_1__thought__c2lnbmF0dXJl"),
        "provider_specific_fields": {"thought_signature": "c2ln"},
    }
    answer = from_chat(chat_answer(None, [call]), CallIds(()))
    assert _ids(answer) == ["call_1"]
    [message] = chat_messages(answer.raw_output)
    assert message["tool_calls"][0]["provider_specific_fields"] == {"thought_signature": "c2ln"}


def test_a_refusal_is_no_text() -> None:
    body = chat_answer(None)
    body["choices"][0]["message"]["refusal"] = "no"
    answer = from_chat(body, CallIds(()))
    assert (answer.content, answer.refusal) == (None, "no")


def test_responses_items_keep_their_order_and_lose_what_cannot_be_sent_back() -> None:
    reasoning = {"type": "reasoning", "id": "rs", "summary": [], "status": "completed", "content": None}
    call = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "{}"}
    answer = from_responses(responses_answer(reasoning, responses_text("hm"), call), CallIds(()))
    assert answer.raw_output == [
        {"type": "reasoning", "id": "rs", "summary": []},
        {"role": "assistant", "content": "hm"},
        call,
    ]
    assert answer.tool_calls[0].id == "fc"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "stop"),
        ({"incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"incomplete_details": {"reason": "content_filter"}}, "content_filter"),
    ],
)
def test_the_stop_reason_of_responses_is_in_chats_words(fields: dict[str, Any], expected: str) -> None:
    assert (
        from_responses(responses_answer(responses_text("x"), **fields), CallIds(())).stop_reason == expected
    )


def test_request_and_answer_survive_json() -> None:
    request = ModelRequest(provider="openai", model="m", messages=[CALL_A], provider_kwargs={"x": [1]})
    assert ModelRequest.model_validate_json(request.model_dump_json()) == request
    answer = from_chat(chat_answer("x", [_chat_call("y")]), CallIds(()))
    assert ModelAnswer.model_validate_json(answer.model_dump_json()) == answer
