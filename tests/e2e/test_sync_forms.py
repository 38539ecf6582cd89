"""Agents without an event loop: run and streamed by plain calls and plain loops."""

from __future__ import annotations

import pytest
from models.servers import ModelServer
from weather import agent

from polos import Polos, StreamResult
from polos.agents.sync_stream import SyncStreamResult
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)


def test_an_agent_is_run_by_a_plain_call(polos: Polos, model: ModelServer) -> None:
    model.says("It is mild.", times=2)

    assert agent.run_sync(polos, "Paris?", session_id="s").result == "It is mild."
    assert agent.run_sync(polos.sync, "Paris?").result == "It is mild."


def test_an_agent_is_streamed_by_plain_loops(polos: Polos, model: ModelServer) -> None:
    model.says("It is mild in Paris.")
    stream = agent.stream_sync(polos, "Paris?")

    assert "".join(stream.text_chunks) == "It is mild in Paris."
    assert [event.event_type for event in stream.events][-1] == "agent_finish"
    assert (stream.text(), stream.result().result) == ("It is mild in Paris.",) * 2
    assert stream.get()["status"] == "completed"
    assert stream.topic == f"workflow/{agent.id}/{stream.agent_run_id}"
    assert repr(stream).startswith("SyncStreamResult(id=")


def test_a_stream_of_a_known_run_is_read_again(polos: Polos, model: ModelServer) -> None:
    model.says("It is mild.")
    handle = agent.stream_sync(polos, "Paris?").handle

    assert SyncStreamResult(StreamResult(handle, polos)).text() == "It is mild."


def test_a_stream_of_a_run_that_fails_raises(polos: Polos, model: ModelServer) -> None:
    model.fails(400)
    stream = agent.stream_sync(polos, "Paris?")

    with pytest.raises(RunFailedError):
        list(stream.text_chunks)
    with pytest.raises(RunFailedError):
        stream.result()


def test_an_unusable_input_is_refused(polos: Polos) -> None:
    with pytest.raises(ValueError, match="must be a text"):
        agent.stream_sync(polos, 7)
