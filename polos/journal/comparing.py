"""Reads of what the journal has of many runs at once, for whoever executes them to compare."""

from __future__ import annotations

from sqlalchemy import bindparam, select

from polos.journal.runs import R
from polos.journal.statements import Statement, texts_of
from polos.journal.steps import S

P = bindparam
# `runs`: a JSON list of ids.
READ_FENCES = Statement(
    select(R.id, R.attempt, R.seq, R.wakes, R.status, R.owner).where(
        R.id.op("IN")(texts_of(P("runs", type_=R.id.type)))
    )
)
READ_SEQS = Statement(
    select(S.run_id, S.name, S.seq).where(S.run_id.op("IN")(texts_of(P("runs", type_=S.run_id.type))))
)
