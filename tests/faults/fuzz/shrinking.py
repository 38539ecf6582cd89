"""Makes a program that misses smaller, as long as it still misses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from fuzz.programs import Batch, Child, Node, Nodes, Parallel, Program, Raise, Spawn, Step, Talk

AT_ONCE = 24  # candidates that are tried together
Missing = Callable[[Sequence[Program]], Awaitable[list[Program]]]


async def shrunk(program: Program, missing: Missing, *, rounds: int) -> Program:
    """Return a smaller program that still misses, or `program` itself.

    Args:
        program: That misses.
        missing: Runs programs under faults, many copies as a miss may need luck; returns those that miss.
        rounds: How often candidates are tried at most.
    """
    for _ in range(rounds):
        candidates = sorted(smaller(program), key=weight)[:AT_ONCE]
        found = await missing(candidates) if candidates else []
        if not found:
            return program
        program = min(found, key=weight)
    return program


def weight(program: Program) -> tuple[int, int]:
    """Return how large a program is: in nodes, then in all it says."""
    return program.size, len(program.model_dump_json(exclude_defaults=True))


def smaller(program: Program) -> Iterator[Program]:
    """Yield programs that are a step smaller, each once."""
    seen = {program}
    for nodes in _smaller_series(program.nodes):
        candidate = Program(nodes=nodes)
        if nodes and candidate not in seen and weight(candidate) < weight(program):
            seen.add(candidate)
            yield candidate


def _smaller_series(nodes: Nodes) -> Iterator[Nodes]:
    half = len(nodes) // 2
    if half > 1:
        yield from (nodes[:half], nodes[half:])
    for place, node in enumerate(nodes):
        before, after = nodes[:place], nodes[place + 1 :]
        yield (*before, *after)
        for part in _parts(node):
            yield (*before, *part, *after)
        for other in _simpler(node):
            yield (*before, other, *after)


def _parts(node: Node) -> Iterator[Nodes]:
    """Yield what a node holds, to stand in its place."""
    match node:
        case Child(nodes=nodes) | Spawn(nodes=nodes):
            yield nodes
        case Batch(children=parts) | Parallel(branches=parts):
            yield from parts


def _simpler(node: Node) -> Iterator[Node]:
    """Yield the same node with less in it."""
    match node:
        case Child() | Spawn():
            yield from (type(node)(nodes=nodes) for nodes in _smaller_series(node.nodes))
        case Batch(children=parts):
            yield from (Batch(children=fewer) for fewer in _smaller_parts(parts))
        case Parallel(branches=parts):
            yield from (Parallel(branches=fewer) for fewer in _smaller_parts(parts))
        case Step(fails=fails) if fails:
            yield Step(sync=node.sync)
        case Raise(times=2):
            yield Raise(times=1)
        case Talk():
            yield from (Talk(rounds=rounds, streamed=node.streamed) for rounds in range(node.rounds))
            if node.refused or node.streamed:
                yield Talk(rounds=node.rounds)


def _smaller_parts(parts: tuple[Nodes, ...]) -> Iterator[tuple[Nodes, ...]]:
    for place, part in enumerate(parts):
        before, after = parts[:place], parts[place + 1 :]
        if len(parts) > 1:
            yield (*before, *after)
        yield from ((*before, fewer, *after) for fewer in _smaller_series(part))
