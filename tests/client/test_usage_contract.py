"""What model calls used, the same straight from the journal and over HTTP."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sites import Site

from polos import PolosClient
from polos.journal.creating import create_run
from polos.journal.database import Connection, Database
from polos.journal.ends import Ending, finish_run
from polos.journal.runs import NewRun, claim_run
from polos.journal.spending import Spent
from polos.journal.states import RunStatus, StepStatus
from polos.journal.steps import Outcome, schedule_turn
from polos.journal.turns import TurnClaim, claim_turn, complete_turn

pytestmark = pytest.mark.timeout(120)
WORKER, TURN = "nobody", "$turn:1"


class Spender:
    """Writes runs of agents that made one model call each, in a deployment that nobody serves."""

    def __init__(self, journal: Connection) -> None:
        self._journal = journal
        self._word = f"usage-{time.time_ns()}"
        self.session = f"{self._word}-session"

    def run(self, agent: str, model: str, cost: float | None) -> str:
        """Write a run in one transaction: sweepers put back what they see that no worker owns."""
        name, place = self.agent(agent), {"project": "default", "deployment": self._word}
        run_id = f"{name}-{time.time_ns()}"
        new = NewRun(
            id=run_id,
            kind="agent",
            name=name,
            queue=name,
            route="polos",
            root_id=run_id,
            root_name=name,
            session_id=self.session,
            **place,
        )
        outcome = Outcome(StepStatus.COMPLETED, output=json.dumps({"content": "yes"}))
        spent = Spent(name, model, 1, int(cost is None), 90, 10, 40, cost)
        turn = TurnClaim(run_id, TURN, 1, 1, 0, 0, None)
        answers = self._journal.commit(
            [
                create_run(new, ring_again=600.0),
                claim_run(run_id, WORKER, **place),
                schedule_turn(run_id, 1, TURN, position=0, input_text="{}", ring_again=600.0),
                claim_turn(run_id, TURN, WORKER, **place),
                complete_turn(turn, WORKER, outcome, root_id=run_id, ring_again=60.0, spent=spent),
                finish_run(run_id, 1, Ending(RunStatus.COMPLETED), root_id=run_id),
            ]
        )
        assert all(answers)
        return run_id

    def agent(self, name: str) -> str:
        return f"{self._word}-{name}"


@pytest.fixture
def spender(site: Site) -> Spender:
    url = site.settings.database_url or f"sqlite:///{site.folder.home}/polos.db"
    return Spender(Database(url).connect())


async def test_usage_is_summed_up_and_narrowed(site_client: PolosClient, spender: Spender) -> None:
    spender.run("a", "openai/gpt-4o", 0.25)
    run_id = spender.run("a", "groq/llama", None)
    spender.run("b", "openai/gpt-4o", 0.5)

    report = await site_client.usage("agent", session=spender.session)
    assert [(row.of, row.calls, row.cost) for row in report.rows] == [
        (spender.agent("a"), 2, 0.25),
        (spender.agent("b"), 1, 0.5),
    ]
    total = report.total
    assert (total.calls, total.unpriced_calls, total.cost) == (3, 1, 0.75)
    assert (total.input_tokens, total.output_tokens, total.total_tokens, total.cached_tokens) == (
        270,
        30,
        300,
        120,
    )
    by_model = await site_client.usage("model", session=spender.session)
    assert [row.of for row in by_model.rows] == ["groq/llama", "openai/gpt-4o"]
    by_day = await site_client.usage("day", session=spender.session)
    assert [row.of for row in by_day.rows] == [datetime.now(UTC).date().isoformat()]
    of_run = await site_client.usage(run_id=run_id)
    assert (of_run.total.calls, of_run.total.cost, of_run.rows) == (1, None, [])
    of_agent = await site_client.usage("session", agent=spender.agent("b"))
    assert [row.of for row in of_agent.rows] == [spender.session]
    priced = await site_client.usage(model="groq/llama", session=spender.session)
    assert priced.total.unpriced_calls == 1


async def test_usage_has_times(site_client: PolosClient, spender: Spender) -> None:
    spender.run("a", "openai/gpt-4o", 0.25)
    now = datetime.now(UTC)
    asked = [
        (1, {"since": timedelta(hours=1)}),
        (1, {"since": now - timedelta(hours=1), "until": now + timedelta(hours=1)}),
        (0, {"since": now + timedelta(hours=1)}),
        (0, {"until": (now - timedelta(hours=1)).replace(tzinfo=None)}),
    ]
    for calls, times in asked:
        report = await site_client.usage(session=spender.session, **times)  # type: ignore[arg-type]
        assert report.total.calls == calls


async def test_the_record_of_a_run_tells_its_cost(site_client: PolosClient, spender: Spender) -> None:
    record = await site_client.get_execution(spender.run("a", "openai/gpt-4o", 0.25))
    assert record["usage"] == {
        "input_tokens": 90,
        "output_tokens": 10,
        "total_tokens": 100,
        "cached_tokens": 40,
        "calls": 1,
        "unpriced_calls": 0,
        "cost": 0.25,
    }


async def test_other_projects_see_nothing_of_it(site: Site, way: str, spender: Spender) -> None:
    spender.run("a", "openai/gpt-4o", 0.25)
    async with site.client(way, project_id="usage-of-nobody") as client:
        assert (await client.usage("session")).total.calls == 0


async def test_an_unknown_group_is_refused(client: PolosClient) -> None:
    with pytest.raises(ValueError, match="day, agent, model, session"):
        await client.usage("week")


def test_sync_clients_ask_too(site: Site, way: str, spender: Spender) -> None:
    spender.run("a", "openai/gpt-4o", 0.25)
    client = site.client(way)
    with client.sync as sync:
        assert sync.usage(session=spender.session).total.cost == 0.25


async def test_the_timeline_of_a_run_tells_the_cost_of_each_turn(site: Site, spender: Spender) -> None:
    run_id = spender.run("a", "openai/gpt-4o", 0.25)
    headers = {"Authorization": f"Bearer {site.keys['default']}"}
    async with httpx.AsyncClient(base_url=site.url, headers=headers) as http:
        detail = (await http.get(f"/api/v1/sessions/{run_id}")).json()
        refused = await http.get("/api/v1/usage", params={"by": "week"})
    [said] = [entry for entry in detail["timeline"] if entry["entry_type"] == "assistant_message"]
    assert said["data"]["usage"] == {
        "calls": 1,
        "unpriced_calls": 0,
        "input_tokens": 90,
        "output_tokens": 10,
        "cached_tokens": 40,
        "total_tokens": 100,
        "cost": 0.25,
    }
    assert detail["total_cost"] == 0.25
    assert refused.status_code == 400
