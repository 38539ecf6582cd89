"""Schedules, and events that start workflows, are the same on both ways: direct, and over HTTP."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import count

import httpx
import pytest
from offered import counted, nightly
from sites import Site

from polos import EventPayload, PolosClient, SchedulePayload, events, schedules

pytestmark = pytest.mark.timeout(120)
_numbers = count(1)


def word() -> str:
    """Return a key that no other test has."""
    return f"key-{time.time_ns()}-{next(_numbers)}"


async def test_a_schedule_is_made_changed_and_forgotten(client: PolosClient) -> None:
    key = word()
    made = await schedules.create(client, "client-nightly", "0 3 * * MON-FRI", "Europe/Berlin", key)
    again = await schedules.create(client, "client-nightly", "0 4 * * *", key=key, catch_up="skip")
    assert again == made
    found = await schedules.get(client, made)
    assert (found.cron, found.timezone, found.key, found.catch_up) == ("0 4 * * *", "UTC", key, "skip")
    assert (found.status, found.workflow_id, found.last_run_at) == ("active", "client-nightly", None)
    assert found.next_run_at is not None
    assert found.next_run_at > datetime.now(UTC)

    assert (await schedules.pause(client, made)).next_run_at is None
    assert (await schedules.get(client, made)).status == "paused"
    assert (await schedules.resume(client, made)).status == "active"
    assert made in [one.id for one in await schedules.list(client, "client-nightly")]
    await schedules.delete(client, made)
    assert made not in [one.id for one in await schedules.list(client)]


async def test_a_schedule_can_be_run_now(client: PolosClient) -> None:
    key = word()
    made = await schedules.create(client, "client-nightly", "0 3 * * *", key=key)
    handle = await schedules.trigger(client, made)
    record = await client.wait(handle.id, timeout_seconds=20)
    assert record["result"] == key
    assert (record["concurrency_key"], record["queue_name"]) == (key, "client-nightly")
    await schedules.delete(client, made)


async def test_a_scheduled_workflow_runs_by_hand(client: PolosClient) -> None:
    now = datetime.now(UTC)
    payload = SchedulePayload(timestamp=now, timezone="UTC", schedule_id="none", key="by hand", upcoming=now)
    assert await nightly.run(client, payload) == "by hand"


@pytest.mark.parametrize(
    ("workflow", "cron", "timezone", "problem"),
    [
        ("client-nightly", "0 0 31 2 *", "UTC", "cron"),
        ("client-nightly", "* * * *", "UTC", "five fields"),
        ("client-nightly", "0 3 * * *", "Mars/Olympus", "time zone"),
        ("client-double", "0 3 * * *", "UTC", "cannot be scheduled"),
        ("client-unheard-of", "0 3 * * *", "UTC", "unknown"),
    ],
)
async def test_what_cannot_be_scheduled_is_refused(
    client: PolosClient, workflow: str, cron: str, timezone: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        await schedules.create(client, workflow, cron, timezone)


async def test_a_schedule_that_does_not_exist_is_said_to(client: PolosClient) -> None:
    for ask in (schedules.get, schedules.pause, schedules.resume, schedules.delete, schedules.trigger):
        with pytest.raises(ValueError, match="no schedule"):
            await ask(client, "unheard-of")


def test_the_sync_forms_do_the_same(site: Site, way: str) -> None:
    key = word()
    with site.client(way).sync as client:
        made = client.schedules.create("client-nightly", "0 3 * * *", key=key)
        assert client.schedules.get(made).key == key
        assert client.schedules.pause(made).status == "paused"
        assert client.schedules.resume(made).status == "active"
        assert made in [one.id for one in client.schedules.list()]
        handle = client.schedules.trigger(made)
        assert client.wait(handle.id, timeout_seconds=20)["result"] == key
        client.schedules.delete(made)


async def test_a_published_event_starts_what_it_triggers_at_once(
    site: Site, site_client: PolosClient
) -> None:
    """Not when a sweeper comes by."""
    [number] = await site_client.publish_events("client/orders", [events.EventData(data={"n": 7})])
    async with httpx.AsyncClient(base_url=site.url) as http:
        headers = {"Authorization": f"Bearer {site.keys['default']}"}
        params = {"workflow_id": "client-counted", "limit": 1}
        runs = (await http.get("/api/v1/workflows/runs", params=params, headers=headers)).json()
    newest = runs[0]
    assert newest["payload"]["sequence_id"] == number, "it was there when publish returned"
    assert (await site_client.wait(newest["id"], timeout_seconds=20))["result"] == 7


async def test_a_triggered_workflow_can_be_started_by_hand(client: PolosClient) -> None:
    event = EventPayload(id="1", sequence_id=1, topic="t", data={"n": 3}, created_at=datetime.now(UTC))
    assert await counted.run(client, event) == 3


# -- over HTTP alone


async def test_the_paths_of_the_api(site: Site) -> None:
    headers = {"Authorization": f"Bearer {site.keys['default']}"}
    async with httpx.AsyncClient(base_url=site.url + "/api/v1", headers=headers) as http:
        body = {"workflow_id": "client-nightly", "cron": "0 3 * * *", "timezone": "UTC", "key": word()}
        made = (await http.post("/schedules", json=body)).json()["schedule_id"]
        listed = (await http.get("/schedules/workflows/client-nightly")).json()["schedules"]
        [shown] = [one for one in listed if one["id"] == made]
        assert set(shown) >= {
            "id",
            "workflow_id",
            "cron",
            "timezone",
            "key",
            "status",
            "last_run_at",
            "next_run_at",
            "created_at",
            "updated_at",
        }
        assert "client-nightly" in (await http.get("/schedules/workflows")).json()["workflow_ids"]
        assert (await http.post("/schedules", json={**body, "cron": "nonsense"})).status_code == 400
        assert (await http.delete(f"/schedules/{made}")).status_code == 204
        assert (await http.get(f"/schedules/{made}")).status_code == 404

        workflows = {one["workflow_id"]: one for one in (await http.get("/workflows")).json()}
        assert (
            workflows["client-nightly"]["scheduled"],
            workflows["client-nightly"]["trigger_on_event"],
        ) == (
            True,
            False,
        )
        assert workflows["client-counted"]["trigger_on_event"] is True

        trigger = {"workflow_id": "client-double", "event_topic": "client/doubled", "batch_size": 3}
        entered = (await http.post("/event-triggers/register", json=trigger)).json()
        assert (entered["is_active"], entered["batch_size"], entered["pending"]) == (True, 3, 0)
        unknown = {**trigger, "workflow_id": "client-unheard-of"}
        assert (await http.post("/event-triggers/register", json=unknown)).status_code == 400
        topics = [one["event_topic"] for one in (await http.get("/event-triggers")).json()["event_triggers"]]
        assert {"client/orders", "client/doubled"} <= set(topics)
        place = {"workflow_id": "client-double", "event_topic": "client/doubled"}
        assert (await http.delete("/event-triggers", params=place)).status_code == 204
        assert (await http.delete("/event-triggers", params=place)).status_code == 404
