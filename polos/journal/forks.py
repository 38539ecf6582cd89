"""The unit that begins a run with a copy of another one's journal."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, exists, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.creating import create_run
from polos.journal.runs import RUNS, NewRun, R
from polos.journal.statements import Part, Statement, Unit, now, texts_of
from polos.journal.states import StepStatus
from polos.journal.steps import STEPS, S

P = bindparam
_COPIED = (
    "kind",
    "position",
    "seq",
    "status",
    "tries",
    "input",
    "output",
    "output_schema",
    "error",
    "failures",
    "child_id",  # for people: the child belongs to the other tree
    "started_at",
    "finished_at",
)
_ZERO = ("attempt", "crashes", "rings")


@dataclass(frozen=True)
class Replacement:
    """A value to go on with instead of the recorded outcome. `output` is JSON text."""

    output: str
    output_schema: str | None = None


_BEGIN = Statement(
    update(RUNS)
    .where(R.id == P("run"), R.attempt == 0)
    .values(attempt=1, seq=P("seq"))  # the first claim finds a journal, as after an attempt that was lost
    .returning(R.id)
)
_begun = exists().where(R.id == P("run"), R.attempt == 1, R.forked_from == P("source"))
_source = STEPS.alias("source")
_copy: dict[str, Any] = {
    "run_id": P("run", type_=S.run_id.type),
    "name": _source.c.name,
    **{name: _source.c[name] for name in _COPIED},
    **{name: literal_column("0") for name in _ZERO},
}
_COPY = Statement(
    upsert(STEPS)
    .from_select(
        list(_copy),
        select(*_copy.values()).where(
            _source.c.run_id == P("source"),
            _source.c.name.op("IN")(texts_of(P("names", type_=S.name.type))),
            _source.c.seq.is_not(None),
            _begun,
        ),
    )
    .on_conflict_do_nothing()
)
_REPLACE = Statement(
    update(STEPS)
    .where(S.run_id == P("run"), S.name == P("name"), _begun)
    .values(
        status=StepStatus.COMPLETED.value,
        output=P("output"),
        output_schema=P("output_schema"),
        error=None,
        failures=None,
        finished_at=now(),
    )
)


def create_fork(
    new: NewRun,
    names: Collection[str],
    replacements: Mapping[str, Replacement],
    *,
    seq: int,
    ring_again: float,
    **options: Any,
) -> Unit:
    """Create a run with a copy of the outcomes `names` of the run it is forked from; answers as `create_run`.

    Args:
        new: The run; `forked_from` says from which.
        names: Of steps that have an outcome, in the journal's form.
        replacements: By the names of steps that are copied.
        seq: Of the last outcome that is copied.
        ring_again: After how many seconds sweepers ring, when nobody claims it.
        options: Others of `create_run`.
    """
    created = create_run(new, ring_again=ring_again, **options)
    params: dict[str, Any] = {
        "run": new.id,
        "source": new.forked_from,
        "seq": seq,
        "names": json.dumps(list(names)),
    }
    parts = [
        *created.parts,
        Part(_BEGIN, params),
        Part(_COPY, params, guard=False),
        *(
            Part(_REPLACE, {**params, "name": name, **vars(value)}, guard=False)
            for name, value in replacements.items()
        ),
    ]
    return Unit(tuple(parts), created.locks, order=created.order)
