"""The passes of fault points at which runs are cancelled: every point, in programs of every kind."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """A pass of a fault point: the `nth` whose label contains `match`, in a program of this kind."""

    program: str
    point: str
    match: str = ""
    nth: int = 1

    def __str__(self) -> str:
        return "-".join(part for part in (self.program, self.point, self.match, str(self.nth)) if part)


def commits(program: str, count: int) -> list[Moment]:
    points = ("before_commit", "after_commit_before_answer")
    return [Moment(program, point, nth=nth) for nth in range(1, count + 1) for point in points]


def of(program: str, *passes: tuple[str, str]) -> list[Moment]:
    return [Moment(program, point, match) for point, match in passes]


MOMENTS = [
    *of(
        "plain",
        ("before_claim", "run"),
        ("after_claim", "workflow plain"),
        ("before_execute", "workflow plain"),
        ("before_execute", "step second"),
        ("after_execute", "step second"),
        ("after_record", "step second"),
        ("after_execute", "workflow plain"),
        ("before_finish", "workflow plain"),
    ),
    *commits("plain", 4),
    *of(
        "child",
        ("before_child_start", "workflow inner"),
        ("after_child_start", "workflow inner"),
        ("before_ring", "workflow inner"),
        ("after_claim", "workflow inner"),
        ("before_execute", "workflow inner"),
        ("after_execute", "step inside"),
        ("after_execute", "workflow inner"),
        ("before_finish", "workflow inner"),
        ("after_finish", "workflow inner"),
        ("before_execute", "step after"),
    ),
    *commits("child", 7),
    *of("waits", ("after_record", "event wait"), ("after_record", "timer"), ("before_execute", "step after")),
    *of(
        "agent",
        ("before_ring", "turn"),
        ("before_claim", "turn"),
        ("after_claim", "turn"),
        ("before_execute", "turn"),
        ("after_execute", "turn"),
        ("after_record", "turn"),
        ("before_child_start", "tool"),
        ("after_child_start", "tool"),
        ("before_ring", "tool"),
        ("after_claim", "tool"),
        ("before_execute", "tool"),
        ("after_execute", "tool"),
        ("before_finish", "tool"),
        ("after_finish", "tool"),
    ),
    *commits("agent", 8),
]
LATE = [
    Moment("plain", "after_finish", "workflow plain"),
    Moment("plain", "after_commit_before_answer", nth=5),
]
