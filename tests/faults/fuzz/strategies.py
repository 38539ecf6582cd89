"""Random programs: hypothesis draws them, a seed names them."""

from __future__ import annotations

import contextlib

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fuzz.programs import (
    FOREVER,
    Ask,
    Batch,
    Cancelled,
    Child,
    Draw,
    Fail,
    Hear,
    Limited,
    Nodes,
    Once,
    Overdue,
    Parallel,
    Patch,
    Program,
    Progress,
    Raise,
    Reply,
    Spawn,
    Step,
    Talk,
    Timer,
    Tool,
)

MAX_NODES = 20  # of a program, those inside others included
MAX_WIDTH = 5  # nodes in a series
DEPTH = 3  # of parts inside of parts

steps = st.builds(Step, sync=st.booleans())
failing = st.builds(
    lambda fails, sync, delay: Step(sync=sync, fails=fails[0], retries=fails[1], delay=delay),
    st.sampled_from([(1, 1), (1, 2), (2, 2), (FOREVER, 1), (FOREVER, 2)]),
    st.booleans(),
    st.sampled_from([0.02, 0.3]),
)
timers = st.builds(Timer, seconds=st.sampled_from([0.02, 0.1, 0.4, 0.9]))
asks = st.builds(Ask, answered=st.sampled_from(["late", "early", "twice", "never"]))
hears = st.builds(Hear, published=st.sampled_from(["before", "beside", "never"]))
talks = st.builds(Talk, rounds=st.integers(0, 2), streamed=st.booleans(), refused=st.booleans())
draws = st.builds(Draw, what=st.sampled_from(["uuid", "now", "random"]))
leaves = st.one_of(
    steps,
    steps,
    failing,
    st.builds(Once, sync=st.booleans()),
    timers,
    draws,
    st.builds(Patch),
    st.builds(Progress),
    asks,
    st.builds(Reply),
    hears,
    st.builds(Tool, sync=st.booleans()),
    talks,
    st.builds(Limited),
    st.builds(Cancelled),
    st.builds(Overdue),
)


def _series(node: st.SearchStrategy[object], most: int) -> st.SearchStrategy[Nodes]:
    return st.lists(node, min_size=1, max_size=most).map(tuple)


def _runs(node: st.SearchStrategy[object], most: int) -> st.SearchStrategy[Nodes]:
    """Return parts that are runs of their own: they may raise, and fail at their end."""
    raising = st.sampled_from([None, None, None, Raise(times=1), Raise(times=2)])
    drawn = st.tuples(_series(node, most), raising, st.booleans(), st.sampled_from([False] * 7 + [True]))
    return drawn.map(lambda parts: _run(*parts))


def _run(nodes: Nodes, raising: Raise | None, is_early: bool, fails: bool) -> Nodes:
    raised: Nodes = () if raising is None else (raising,)
    return (*(raised + nodes if is_early else nodes + raised), *((Fail(),) if fails else ()))


def _nodes(depth: int) -> st.SearchStrategy[object]:
    """Return nodes that hold others, so many levels deep at most."""
    if depth == 0:
        return leaves
    inner = _nodes(depth - 1)
    holders = st.one_of(
        st.builds(Child, nodes=_runs(inner, 3)),
        st.builds(Spawn, nodes=_runs(inner, 3)),
        st.builds(Batch, children=st.lists(_runs(inner, 2), min_size=1, max_size=3).map(tuple)),
        st.builds(Parallel, branches=st.lists(_series(inner, 2), min_size=2, max_size=3).map(tuple)),
    )
    return st.sampled_from([leaves, leaves, holders]).flatmap(lambda chosen: chosen)


programs = (
    st.tuples(_runs(_nodes(DEPTH), MAX_WIDTH), _nodes(DEPTH))
    .map(lambda parts: Program(nodes=(parts[1], *parts[0])))
    .filter(lambda program: program.size <= MAX_NODES)
)


def draw_programs(number: int, seed_number: int) -> list[Program]:
    """Return so many programs, no two alike, always the same for a seed."""
    drawn: dict[Program, None] = {}

    @seed(seed_number)
    @settings(
        max_examples=2 * number + 10,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(programs)
    def keep(program: Program) -> None:
        drawn.setdefault(program)
        if len(drawn) == number:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        keep()
    return list(drawn)


class _EnoughError(Exception):
    """All that were wanted are drawn."""
