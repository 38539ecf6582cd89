"""`polos limits`: what is configured, what Redis and the journal count, who waits."""

from __future__ import annotations

import asyncio
import json

import pytest
from written import Written, polos

from polos.allowances import Allowance, Question
from polos.journal.allowances import change_allowance
from polos.journal.turns import TurnClaim, put_turn_off
from polos.streaming.allowances import SharedAllowances
from polos.streaming.server import RedisServer

NAME = "default:groq/limits-command:0123456789ab"


@pytest.fixture
def counted(valkey_url: str, journal: Written, monkeypatch: pytest.MonkeyPatch) -> Written:
    """A model that was asked three times, in Redis; one in the journal; a turn that waits."""
    url = f"{valkey_url}/0"
    monkeypatch.setenv("POLOS_REDIS_URL", url)
    monkeypatch.setenv("POLOS_MODEL_LIMITS", "groq/*=1rpm")

    async def ask() -> None:
        shared = SharedAllowances(RedisServer.from_url(url), prefix="polos:")
        for _ in range(3):
            await shared.ask(NAME, Question(cost=60.0))
        await shared.close()

    asyncio.run(ask())
    state = Allowance(gate=9e9, tail=9e9, paused=9e9)
    journal.do(change_allowance("default", "default:openai/gpt:ff", state, seen=None))
    run = journal.claimed(journal.run(kind="agent"))
    journal.turn(run, worker="w1")
    claim = TurnClaim(run.id, "$turn:1", 1, 1, 0, 0, None)
    assert journal.do(put_turn_off(claim, "w1", ticket=1.0, delay=60.0))
    return journal


def test_what_counts_is_shown(counted: Written) -> None:
    shown = polos("limits")
    assert shown.exit_code == 0, shown.output
    assert "Limits: groq/*=1rpm" in shown.output
    assert "Turns that wait for a limit or a pause: 1" in shown.output
    assert "groq/limits-command" in shown.output
    assert "openai/gpt" in shown.output


def test_json_has_the_numbers(counted: Written) -> None:
    told = json.loads(polos("limits", "--json").output)
    by_model = {model["model"]: model for model in told["models"]}
    asked = by_model["groq/limits-command"]
    assert (asked["limit"], asked["counted_in"], asked["paused_seconds"]) == ("groq/*=1rpm", "redis", 0.0)
    assert asked["next_call_seconds"] == pytest.approx(60, abs=30)
    assert asked["line_seconds"] > 100
    assert by_model["openai/gpt"]["counted_in"] == "database"
    assert by_model["openai/gpt"]["limit"] is None


def test_a_redis_that_is_away_is_said_to_be(counted: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLOS_REDIS_URL", "redis://127.0.0.1:1/0")
    shown = polos("limits")
    assert shown.exit_code == 0
    assert "does not answer" in shown.output
    assert "openai/gpt" in shown.output


def test_a_run_whose_turn_waits_says_for_what(counted: Written) -> None:
    [run] = json.loads(polos("runs", "--json").output)
    assert "waits for the limit of its model until" in polos("runs", "show", run["id"]).output
