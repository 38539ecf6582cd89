"""A turn that waits for its model is a row: on SQLite and PostgreSQL, whoever looks at it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from both import on_both

from polos.journal.creating import create_run
from polos.journal.database import Connection, Database
from polos.journal.recovery import due_turns, put_back_turns
from polos.journal.runs import NewRun, claim_run
from polos.journal.spending import NOTHING
from polos.journal.statements import Unit
from polos.journal.steps import READ_STEP_DETAILS, schedule_turn, step_details
from polos.journal.turns import TurnClaim, claim_turn, put_turn_off, retry_turn

pytestmark = on_both
PLACE = {"project": "p", "deployment": "d"}
TURN = "$turn:1"


class Scene:
    """A run with one turn, and short words for what happens to it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.run = str(uuid.uuid4())
        new = NewRun(
            id=self.run,
            kind="agent",
            name="a",
            queue="a",
            route="r",
            root_id=self.run,
            root_name="a",
            **PLACE,
        )
        self.do(create_run(new, ring_again=60.0))
        self.do(claim_run(self.run, "w", **PLACE))
        self.do(schedule_turn(self.run, 1, TURN, position=0, input_text="{}", ring_again=60.0))

    def do(self, unit: Unit) -> Any:
        return self.connection.commit([unit])[0]

    def claim(self, worker: str = "w") -> TurnClaim | None:
        rows = self.do(claim_turn(self.run, TURN, worker, **PLACE))
        return TurnClaim(*rows[0]) if rows else None

    def put_off(self, delay: float, ticket: float | None = 12.5, worker: str = "w") -> list[Any]:
        claim = self.claim(worker)
        assert claim is not None
        found: list[Any] = self.do(put_turn_off(claim, worker, ticket=ticket, delay=delay))
        return found

    @property
    def row(self) -> dict[str, Any]:
        [row] = self.connection.read(READ_STEP_DETAILS, {"run": self.run})
        return step_details(row)


@pytest.fixture
def scene(database: Database) -> Iterator[Scene]:
    connection = database.connect()
    yield Scene(connection)
    connection.close()


def test_nobody_owns_it_and_nobody_can_claim_it_before_its_moment(scene: Scene) -> None:
    scene.put_off(60.0)
    row = scene.row
    assert (row["status"], row["owner"], row["tries"], row["ticket"]) == ("scheduled", None, 0, 12.5)
    assert row["uncounted_calls"] == 0, "no call was made that anybody must pay for"
    assert scene.claim() is None


def test_it_is_rung_when_its_moment_comes_and_has_its_place_still(scene: Scene) -> None:
    scene.put_off(0.0)
    rung = scene.do(due_turns(ring_again=5.0, ring_again_max=60.0))
    assert [(run, step) for run, step, *_ in rung] == [(scene.run, TURN)]
    claim = scene.claim()
    assert claim is not None
    assert (claim.ticket, claim.tries) == (12.5, 1)


def test_whoever_dies_with_it_leaves_its_place(scene: Scene) -> None:
    scene.put_off(0.0)
    assert scene.claim("doomed") is not None
    assert scene.do(put_back_turns("doomed")) == [(scene.run, TURN)]
    claim = scene.claim()
    assert claim is not None
    assert (claim.ticket, claim.crashes) == (12.5, 1)


def test_a_failed_call_has_used_its_place_up(scene: Scene) -> None:
    scene.put_off(0.0)
    claim = scene.claim()
    assert claim is not None
    assert scene.do(retry_turn(claim, "w", error="busy", failures="[]", delay=0.0, spent=NOTHING))
    claim = scene.claim()
    assert claim is not None
    assert claim.ticket is None


def test_who_lost_the_turn_puts_nothing_off(scene: Scene) -> None:
    claim = scene.claim("slow")
    assert claim is not None
    scene.do(put_back_turns("slow"))
    assert scene.claim("quick") is not None
    assert scene.do(put_turn_off(claim, "slow", ticket=1.0, delay=60.0)) == []
    assert (scene.row["owner"], scene.row["ticket"]) == ("quick", None)
