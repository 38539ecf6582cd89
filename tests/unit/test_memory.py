"""Estimates, cuts, summaries and what of a conversation is remembered: functions of items alone."""

from __future__ import annotations

from typing import Any

import pytest

from polos import memory
from polos.errors import StepExecutionError
from polos.memory.compaction import compact, shortened
from polos.memory.cutting import cut
from polos.memory.items import remembered, unpaired
from polos.memory.summaries import SUMMARY_ASSISTANT_ACK, SUMMARY_USER_PREFIX, summary_in, transcript
from polos.memory.types import CompactionConfig, NormalizedCompactionConfig, checked_limits

Item = dict[str, Any]


def user(text: str) -> Item:
    return {"role": "user", "content": text}


def assistant(text: str) -> Item:
    return {"role": "assistant", "content": text}


def call(name: str) -> Item:
    return {"type": "function_call", "name": "look", "call_id": name, "arguments": "{}"}


def output(name: str, text: str = "seen") -> Item:
    return {"type": "function_call_output", "call_id": name, "output": text}


THOUGHT: Item = {"type": "reasoning", "id": "rs_1", "encrypted_content": "…"}


# -- estimates


def test_calls_and_outputs_are_counted_as_what_they_are() -> None:
    assert memory.estimate_tokens("") == 0
    assert memory.estimate_tokens("abcde") == 2
    assert memory.estimate_message_tokens(output("1", "x" * 4000)) > 1000
    assert memory.estimate_messages_tokens([user("x" * 400), call("1")]) > 100


def test_an_image_is_not_counted_by_its_characters() -> None:
    data = "A" * 1_000_000
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    assert memory.estimate_message_tokens({"role": "user", "content": [image]}) < 2000


# -- cuts


CONVERSATIONS = [
    [user("1"), assistant("2"), user("3"), assistant("4"), user("5")],
    [user("1"), call("a"), call("b"), output("a"), output("b"), assistant("2"), user("3")],
    [user("1"), THOUGHT, assistant("so"), call("a"), output("a"), THOUGHT, call("b"), output("b")],
    [user("1"), *(item for n in range(9) for item in (call(str(n)), output(str(n))))],
    [assistant("hello"), user("1"), user("2"), assistant("3")],
]


@pytest.mark.parametrize("items", CONVERSATIONS)
@pytest.mark.parametrize("recent", [1, 2, 3, 4])
@pytest.mark.parametrize("pair", [False, True])
def test_a_cut_splits_no_answer_and_keeps_the_question(items: list[Item], recent: int, pair: bool) -> None:
    items = [*(memory.build_summary_messages("before") if pair else []), *items]
    begin = 2 if pair else 0
    found = cut(items, begin=begin, recent=recent)
    if found is None:
        return
    assert sorted([*found.folded, *found.kept]) == list(range(begin, len(items)))
    assert found.kept[-recent:] == list(range(len(items) - recent, len(items)))
    kept = [items[place] for place in found.kept]
    folded = [items[place] for place in found.folded]
    assert kept[0].get("role") == "user"
    assert unpaired(kept) == unpaired(folded) == []
    for place, item in enumerate(kept):  # thoughts stay with the answer they led to, and calls with thoughts
        if item.get("type") == "function_call":
            before = items[found.kept[place] - 1]
            assert before.get("type") != "reasoning" or kept[place - 1] is before


def test_where_all_is_recent_nothing_is_cut() -> None:
    assert cut([user("1")], begin=0, recent=2) is None
    assert cut([user("1"), call("a"), output("a")], begin=0, recent=1) is None
    assert cut([*memory.build_summary_messages("x"), user("1")], begin=2, recent=2) is None


# -- compaction


class Model:
    """Makes summaries, each as long as told, and keeps what it was asked."""

    def __init__(self, *summaries: str | Exception) -> None:
        self.summaries = list(summaries)
        self.asked: list[tuple[str, str]] = []

    async def __call__(self, key: str, messages: list[Item], *, system_prompt: str) -> str:
        self.asked.append((key, messages[0]["content"]))
        summary = self.summaries.pop(0)
        if isinstance(summary, Exception):
            raise summary
        return summary


SMALL = NormalizedCompactionConfig(max_conversation_tokens=70, max_summary_tokens=20)
LONG = [user("question " + "x" * 100), assistant("answer " + "y" * 100), user("next")]


async def test_what_is_short_enough_is_left_alone() -> None:
    assert await compact([user("hi")], SMALL, Model()) is None
    off = SMALL.model_copy(update={"enabled": False})
    assert await compact(LONG, off, Model()) is None


async def test_a_summary_stands_for_what_is_folded_and_for_the_one_before() -> None:
    items = [*memory.build_summary_messages("the first summary"), *LONG, assistant("z" * 200), user("last")]
    model = Model("the second")
    found = await compact(items, SMALL, model)
    assert found is not None
    result = shortened(items, found)
    assert result[:2] == memory.build_summary_messages("the second")
    assert result[2:] == [user("next"), assistant("z" * 200), user("last")]
    [(key, asked)] = model.asked
    assert key == ""
    assert "the first summary" in asked
    assert "User: question xxx" in asked
    assert SUMMARY_USER_PREFIX not in asked


async def test_a_summary_that_is_too_long_is_summarised_once_more() -> None:
    model = Model("long " * 100, "short")
    found = await compact([*LONG, assistant("z" * 200)], SMALL, model)
    assert found is not None
    assert found.summary == "short"
    assert [key for key, _ in model.asked] == ["", "shorter"]


@pytest.mark.parametrize("failure", [StepExecutionError("no"), "  "])
async def test_without_a_summary_the_recent_messages_stay(failure: Any) -> None:
    items = [*memory.build_summary_messages("the first"), *LONG, assistant("z" * 200), user("last")]
    found = await compact(items, SMALL, Model(failure))
    assert found is not None
    assert found.summary is None
    assert summary_in(shortened(items, found)) == "the first"
    assert shortened(items, found)[2:] == [user("next"), assistant("z" * 200), user("last")]


async def test_what_was_refused_as_too_long_is_folded_in_pieces() -> None:
    items = [item for n in range(10) for item in (user(f"{n} " + "x" * 300), assistant("y" * 300))]
    model = Model(*(f"summary {n}" for n in range(1, 9)))
    limits = NormalizedCompactionConfig(max_conversation_tokens=400, enabled=False)
    found = await compact([*items, user("last")], limits, model, force=True)
    assert found is not None
    assert len(model.asked) > 2
    assert all(memory.estimate_tokens(asked) < 550 for _, asked in model.asked)
    assert [key for key, _ in model.asked[:3]] == ["", "2", "3"]
    assert "summary 1" in model.asked[1][1]
    assert "".join(asked for _, asked in model.asked).count("User: ") == 9


def test_a_transcript_tells_all_but_what_only_a_provider_can_read() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    blocks = {"role": "user", "content": [{"type": "input_text", "text": "Look"}, image]}
    items = [blocks, THOUGHT, call("1"), {**output("1"), "is_error": True}, assistant("z" * 20_000)]
    told = transcript(items)
    assert told[:3] == [
        "User: Look\n[input_image]",
        "Assistant calls the tool look with {}",
        "The tool failed: seen",
    ]
    assert len(told[3]) < 9_000
    assert "12000 characters left out" in told[3]


# -- what is remembered


def test_calls_without_outputs_thoughts_and_empty_messages_are_not_remembered() -> None:
    items = [
        user("1"),
        THOUGHT,
        assistant(""),
        call("a"),
        call("b"),
        output("b"),
        output("c"),
        assistant("2"),
    ]
    kept = remembered(items, longest_blob=10)
    assert [item for item in kept if item is not None] == [user("1"), call("b"), output("b"), assistant("2")]
    assert len(kept) == len(items)
    assert unpaired(items) == ["a", "c"]
    assert unpaired([output("a"), call("a")]) == ["a"]


def test_what_belongs_to_one_provider_is_left_out() -> None:
    item = {**call("a"), "id": "fc_1", "status": "completed", "provider_specific_fields": {"x": 1}}
    search = {"type": "web_search_call", "id": "ws_1"}
    assert remembered([item, output("a"), search], longest_blob=10) == [call("a"), output("a"), None]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 400},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400}},
        {"type": "document", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400}},
        {"type": "input_file", "filename": "a", "file_data": "data:image/png;base64," + "A" * 400},
        {"type": "file", "file": {"filename": "a", "file_data": "data:image/png;base64," + "A" * 400}},
    ],
    ids=lambda block: block["type"],
)
def test_large_blobs_become_notes_in_every_style(block: Item) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "what?"}, block]}
    assert remembered([message], longest_blob=300) == [message]
    [kept] = remembered([message], longest_blob=299)
    assert kept is not None
    [text, note] = kept["content"]
    assert text == {"type": "text", "text": "what?"}
    assert note["type"] == ("input_text" if block["type"].startswith("input_") else "text")
    assert "image/png of 300 bytes" in note["text"]
    assert message["content"][1] is block


def test_a_link_to_an_image_is_kept() -> None:
    message = {"role": "user", "content": [{"type": "input_image", "image_url": "https://x/" + "y" * 999}]}
    assert remembered([message], longest_blob=0) == [message]


# -- limits


def test_limits_have_defaults() -> None:
    normal = CompactionConfig().normalized()
    assert normal.model_dump() == {
        "max_conversation_tokens": 80_000,
        "max_summary_tokens": 20_000,
        "min_recent_messages": 2,
        "enabled": True,
    }
    assert checked_limits(None) == normal
    assert checked_limits({"enabled": False}).enabled is False


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"max_tokens": 5}, ValueError),
        ({"max_conversation_tokens": 0}, ValueError),
        ({"min_recent_messages": -1}, ValueError),
        ("always", TypeError),
        (True, TypeError),
    ],
)
def test_limits_that_cannot_be_used_are_refused(given: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="compaction"):
        checked_limits(given)


def test_a_summary_pair_is_recognised() -> None:
    first, second = memory.build_summary_messages("so far")
    assert first["role"] == "user"
    assert second == {"role": "assistant", "content": SUMMARY_ASSISTANT_ACK}
    assert memory.is_summary_pair([first, second, user("1")])
    assert memory.is_summary_pair(first, second)
    assert not memory.is_summary_pair([user("1"), second])
    assert not memory.is_summary_pair([first])
    assert not memory.is_summary_pair([])
