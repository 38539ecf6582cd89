"""Server-sent events over HTTP: of runs, from any position, and of topics; and how streams end."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from stand import API, Stand, stand, wait_until

from polos.settings import Settings

STREAM = f"{API}/events/stream"


@dataclass
class Frame:
    """What stands between two empty lines."""

    fields: dict[str, str] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)

    @property
    def event(self) -> dict[str, Any]:
        return json.loads(self.fields["data"])


def frames_of(answer: httpx.Response) -> Iterator[Frame]:
    frame = Frame()
    for line in answer.iter_lines():
        if not line:
            yield frame
            frame = Frame()
        elif line.startswith(":"):
            frame.comments.append(line[1:].strip())
        else:
            name, _, value = line.partition(": ")
            frame.fields[name] = value


def events_of(client: httpx.Client, after: str | None = None, **query: Any) -> list[Frame]:
    """Return the frames with events of a stream that ends."""
    headers = {} if after is None else {"Last-Event-ID": after}
    with client.stream("GET", STREAM, params=query, headers=headers) as answer:
        assert answer.status_code in {200, 204}, answer.read()
        return [frame for frame in frames_of(answer) if "data" in frame.fields]


@contextlib.contextmanager
def opened(client: httpx.Client, **query: Any) -> Iterator[Iterator[Frame]]:
    with client.stream("GET", STREAM, params=query) as answer:
        assert answer.status_code == 200, answer.read()
        yield frames_of(answer)


def start(client: httpx.Client, workflow_id: str, payload: Any) -> str:
    answer = client.post(f"{API}/workflows/{workflow_id}/run", json={"payload": payload})
    return str(answer.json()["execution_id"])


def publish(client: httpx.Client, topic: str, *values: int) -> list[int]:
    events = [{"event_type": "told", "data": {"value": value}} for value in values]
    answer = client.post(f"{API}/events/publish", json={"topic": topic, "events": events})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["sequence_ids"])


@pytest.fixture(scope="module")
def told_run(shop: httpx.Client, worker: None) -> tuple[str, list[Frame]]:
    """A run of three steps that has ended, and the frames of its stream."""
    run_id = start(shop, "repeat", {"steps": 3, "size": 10})
    shop.get(f"{API}/executions/{run_id}", params={"wait": 30})
    return run_id, events_of(shop, workflow_run_id=run_id)


def test_a_stream_tells_a_run_from_its_start_to_its_end(told_run: tuple[str, list[Frame]]) -> None:
    run_id, frames = told_run
    kinds = [frame.fields["event"] for frame in frames]
    assert kinds[0] == "workflow_start"
    assert kinds.count("step_finish") == 3
    assert kinds[-1] == "workflow_finish"
    assert frames[-1].event["data"]["_metadata"]["execution_id"] == run_id


def test_every_frame_has_its_position(told_run: tuple[str, list[Frame]]) -> None:
    _, frames = told_run
    ids = [frame.fields["id"] for frame in frames]
    assert len(set(ids)) == len(ids)
    assert [frame.event["id"] for frame in frames] == ids


def test_a_stream_goes_on_after_any_position(shop: httpx.Client, worker: None) -> None:
    run_id = start(shop, "linger", {"seconds": 60})
    publish(shop, f"workflow/linger/{run_id}", *range(5))
    shop.post(f"{API}/executions/{run_id}/cancel")
    frames = events_of(shop, workflow_run_id=run_id)
    told = [frame.event["data"] for frame in frames]
    assert [data["value"] for data in told if "value" in data] == list(range(5))
    for place, frame in enumerate(frames[:-1]):
        rest = events_of(shop, after=frame.fields["id"], workflow_run_id=run_id)
        assert [each.event["data"] for each in rest] == told[place + 1 :]
    by_query = events_of(shop, last_event_id=frames[0].fields["id"], workflow_run_id=run_id)
    assert [each.event["data"] for each in by_query] == told[1:]


def test_after_the_end_there_is_nothing_more_to_ask_for(
    shop: httpx.Client, told_run: tuple[str, list[Frame]]
) -> None:
    """A browser connects again when a stream ends; 204 tells it to stop."""
    run_id, frames = told_run
    last = {"Last-Event-ID": frames[-1].fields["id"]}
    assert shop.get(STREAM, params={"workflow_run_id": run_id}, headers=last).status_code == 204


def test_live_tells_the_end_of_a_run_that_has_ended(
    shop: httpx.Client, told_run: tuple[str, list[Frame]]
) -> None:
    run_id, _ = told_run
    [frame] = events_of(shop, workflow_run_id=run_id, live="true")
    assert frame.fields["event"] == "workflow_finish"


def test_the_topic_of_a_run_is_its_stream(shop: httpx.Client, told_run: tuple[str, list[Frame]]) -> None:
    run_id, frames = told_run
    by_topic = events_of(shop, topic=f"workflow/repeat/{run_id}")
    assert len(by_topic) == len(frames)


def test_a_time_is_a_position(shop: httpx.Client, told_run: tuple[str, list[Frame]]) -> None:
    run_id, frames = told_run
    all_of_it = events_of(shop, workflow_run_id=run_id, last_timestamp="2020-01-01T00:00:00Z")
    assert len(all_of_it) == len(frames)


@pytest.mark.parametrize("cursor", ["x", "1.2", "-1", "9" * 200, "1.2-3.zz", "9999999999.1-1"])
def test_a_position_that_is_none_is_refused(
    shop: httpx.Client, told_run: tuple[str, list[Frame]], cursor: str
) -> None:
    run_id, _ = told_run
    answer = shop.get(STREAM, params={"workflow_run_id": run_id, "last_event_id": cursor})
    assert (answer.status_code, answer.json()["error_type"]) == (400, "BAD_REQUEST")
    topic = shop.get(STREAM, params={"topic": "t", "last_event_id": cursor})
    assert (topic.status_code, topic.json()["error_type"]) == (400, "BAD_REQUEST")


def test_nothing_to_follow_is_refused(shop: httpx.Client) -> None:
    assert shop.get(STREAM).status_code == 400


def test_a_stream_tells_a_run_while_it_goes_on(shop: httpx.Client, worker: None) -> None:
    run_id = start(shop, "linger", {"seconds": 0.5})
    with opened(shop, workflow_run_id=run_id) as frames:
        kinds = [frame.fields["event"] for frame in frames if "data" in frame.fields]
    assert (kinds[0], kinds[-1]) == ("workflow_start", "workflow_finish")


def test_a_stream_shows_that_it_lives(shop: httpx.Client, worker: None) -> None:
    run_id = start(shop, "linger", {"seconds": 60})
    with opened(shop, workflow_run_id=run_id) as frames:
        assert next(frames).fields == {"retry": "1000"}
        assert any("keepalive" in frame.comments for frame in frames)
    shop.post(f"{API}/executions/{run_id}/cancel")


def test_a_cancelled_run_ends_its_stream(shop: httpx.Client, worker: None) -> None:
    run_id = start(shop, "linger", {"seconds": 60})
    with opened(shop, workflow_run_id=run_id) as frames:
        next(frames)
        shop.post(f"{API}/executions/{run_id}/cancel")
        kinds = [frame.fields.get("event") for frame in frames]
    assert kinds[-1] == "workflow_cancel"


def test_a_topic_is_followed_from_now(server: Stand) -> None:
    client, _ = server.of_new_project()
    publish(client, "news", 1)
    with opened(client, topic="news") as frames:
        next(frames)
        publish(client, "news", 2)
        told = next(frame for frame in frames if "data" in frame.fields)
    assert told.event["data"] == {"value": 2}


def test_a_topic_is_followed_from_any_position(server: Stand) -> None:
    client, _ = server.of_new_project()
    numbers = publish(client, "news", 1, 2, 3)
    with opened(client, topic="news", last_sequence_id=0) as frames:
        told = [next(frame for frame in frames if "data" in frame.fields) for _ in numbers]
    assert [frame.event["data"]["value"] for frame in told] == [1, 2, 3]
    with opened(client, topic="news", last_event_id=told[1].fields["id"]) as frames:
        assert next(frame for frame in frames if "data" in frame.fields).event["data"] == {"value": 3}


def test_published_events_are_listed(server: Stand) -> None:
    client, _ = server.of_new_project()
    numbers = publish(client, "news", 1, 2, 3)
    page = client.get(f"{API}/events", params={"topic": "news", "limit": 2}).json()
    assert [event["data"]["value"] for event in page["events"]] == [1, 2]
    assert (page["next_sequence_id"], page["has_more"]) == (numbers[1], True)
    rest = client.get(f"{API}/events", params={"topic": "news", "last_sequence_id": numbers[1]}).json()
    assert ([event["data"]["value"] for event in rest["events"]], rest["has_more"]) == ([3], False)
    newest = client.get(f"{API}/events", params={"topic": "news", "limit": 1, "sort": "desc"}).json()
    assert newest["events"][0]["data"] == {"value": 3}


def test_nothing_is_published_into_a_run_of_another_project(server: Stand) -> None:
    owner, _ = server.of_new_project()
    stranger, _ = server.of_new_project()
    topic = f"workflow/flow/{start(owner, 'flow', {})}"
    publish(stranger, topic, 1)
    publish(owner, topic, 2)
    told = owner.get(f"{API}/events", params={"topic": topic}).json()["events"]
    assert [event["data"] for event in told if event["event_type"] == "told"] == [{"value": 2}]


def test_an_event_type_cannot_forge_frames(server: Stand) -> None:
    client, _ = server.of_new_project()
    forged = {"event_type": "a\n\ndata: forged\n\n", "data": {}}
    client.post(f"{API}/events/publish", json={"topic": "news", "events": [forged]})
    with opened(client, topic="news", last_sequence_id=0) as frames:
        told = next(frame for frame in frames if "data" in frame.fields)
    assert told.event["event_type"] == forged["event_type"]


# -- how streams end


def test_a_client_that_leaves_frees_its_stream(server: Stand) -> None:
    client, _ = server.of_new_project()
    wait_until(lambda: server.open_streams() == 0)
    with opened(client, topic="news") as frames:
        next(frames)
        assert server.open_streams() == 1
    wait_until(lambda: server.open_streams() == 0, seconds=5)


def test_a_revoked_key_ends_its_stream(server: Stand) -> None:
    client, project = server.of_new_project()
    admin = server.client(server.key(project, admin=True))
    [key] = [
        key
        for key in admin.get(f"{API}/api-keys/project/{project}").json()["api_keys"]
        if not key["is_admin"]
    ]
    with opened(client, topic="news") as frames:
        next(frames)
        admin.delete(f"{API}/api-keys/{key['id']}")
        comments = [comment for frame in frames for comment in frame.comments]
    assert "revoked" in comments[-1]


def test_a_client_that_never_reads_is_given_up(settings: Settings) -> None:
    """What it does not read stays where it is kept: nothing is collected for it."""
    with stand(settings.with_values(stream_stall_seconds=1.0)) as server:
        secret = server.key(f"project-{uuid.uuid4().hex[:8]}")
        client = server.client(secret)
        for _ in range(30):
            events = [{"data": {"text": "x" * 100_000}} for _ in range(10)]
            client.post(f"{API}/events/publish", json={"topic": "big", "events": events})
        parts = urlsplit(server.url)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect((parts.hostname, parts.port))
            lines = [
                f"GET {STREAM}?topic=big&last_sequence_id=0 HTTP/1.1",
                f"Host: {parts.netloc}",
                f"Authorization: Bearer {secret}",
            ]
            deaf.sendall("\r\n".join([*lines, "", ""]).encode())
            wait_until(lambda: server.open_streams() == 1)
            began = time.monotonic()
            wait_until(lambda: server.open_streams() == 0, seconds=20)
            assert time.monotonic() - began > 0.5
