"""What a sweep asks of a large journal, and which errors of PostgreSQL are taken for an outage."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors as sql_errors

from polos.journal.database import Database
from polos.journal.postgres import translated
from polos.journal.recovery import READ_ANY_DUE

FILL = """
INSERT INTO run (id, project, deployment, kind, name, status, attempt, seq, wakes, awaited, root_id,
    root_name, depth, queue, route, running_seconds, crashes, retries, rings, input_tokens, output_tokens,
    total_tokens,
    created_at, ring_at, finished_at)
SELECT 'run' || i, 'p', 'd', 'workflow', 'f', CASE WHEN i % 100 = 0 THEN 'queued' ELSE 'completed' END,
    1, 1, 0, 0, 'run' || i, 'f', 0, 'f', 'polos', 0, 0, 0, 0, 0, 0, 0, i,
    CASE WHEN i % 100 = 0 THEN 4e9 END, CASE WHEN i % 100 = 0 THEN NULL ELSE 1.0 END
FROM generate_series(1, 20000) i
"""


def test_a_look_at_what_is_due_reads_no_whole_table(postgresql: Database) -> None:
    with psycopg.connect(postgresql.conninfo, autocommit=True) as connection:
        connection.execute(FILL)
        connection.execute("ANALYZE run")
        text = READ_ANY_DUE.compiled(postgresql.dialect)
        plan = connection.execute("EXPLAIN " + text.text, text.bind({})).fetchall()
    assert not [line for (line,) in plan if "Seq Scan on run" in line]


def test_an_entry_too_long_for_an_index_is_no_outage(postgresql: Database) -> None:
    """Taken for one, it was repeated for ever, and everything else of the process waited behind it."""
    with (
        psycopg.connect(postgresql.conninfo, autocommit=True) as connection,
        pytest.raises(sql_errors.ProgramLimitExceeded) as refused,
    ):
        connection.execute(
            "INSERT INTO deployment (project, name, first_seen_at)"
            " SELECT 'p', string_agg(md5(i::text), ''), 0 FROM generate_series(1, 1000) i"
        )
    assert translated(refused.value) is refused.value
