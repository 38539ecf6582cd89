"""Every place a worker is killed at: what work passes it, on whose queue, and what may happen twice."""

from __future__ import annotations

from dataclasses import dataclass

# Which worker gets what: the victim consumes one Celery queue of the case, the survivor the others.
ROOT = "root"  # the victim coordinates the run; what that starts is executed by the survivor
BEGUN = "begun"  # the survivor coordinates; the victim executes turns or children
TOOL = "tool"  # the survivor coordinates and calls the model; the victim executes the tool
ALL = "all"  # the victim gets everything


@dataclass(frozen=True)
class Case:
    """One kill.

    Attributes:
        kind: What is under way: a plain step, the start of a child, an agent's turn, a tool.
        point: The fault point.
        match: Part of the label that the pass must have.
        nth: Which pass of the point it is.
        twice: Side effects that were interrupted before their outcome was recorded, so that they run again.
        calls_again: Number of the turn whose model call is made again.
    """

    kind: str
    point: str
    match: str = ""
    nth: int = 1
    placement: str = ROOT
    twice: str | None = None
    calls_again: int | None = None

    @property
    def id(self) -> str:
        """Name of the case, of its route, and end of the names of its definitions."""
        label = self.match.replace(" ", "-")
        parts = (self.kind, self.point, label, str(self.nth) if self.nth > 1 else "", self.placement)
        return "-".join(part for part in parts if part).replace("_", "-")

    @property
    def fault(self) -> str:
        """Value of POLOS_FAULT."""
        return f"{self.point}:kill9:{self.nth}:{self.match}"

    @property
    def every_queue(self) -> list[str]:
        """All its Celery queues."""
        return [self.id, f"{self.id}.next", f"{self.id}-tool.next"]

    @property
    def queues(self) -> dict[str, list[str]]:
        """The Celery queues of the victim, and those the survivor consumes from the beginning."""
        every = self.every_queue
        theirs = {ROOT: every[:1], BEGUN: every[1:2], TOOL: every[2:], ALL: every}[self.placement]
        return {"victim": theirs, "survivor": [queue for queue in every if queue not in theirs]}


def plain(point: str, match: str = "", **options: object) -> Case:
    return Case("plain", point, match, **options)  # type: ignore[arg-type]


def child(point: str, match: str = "", **options: object) -> Case:
    return Case("child", point, match, **options)  # type: ignore[arg-type]


def turn(point: str, match: str = "", **options: object) -> Case:
    return Case("turn", point, match, **options)  # type: ignore[arg-type]


def tool(point: str, match: str = "", **options: object) -> Case:
    return Case("tool", point, match, **options)  # type: ignore[arg-type]


# A plain run commits: claim, three steps, end.
PLAIN = [
    plain("before_claim", "run"),
    plain("before_commit"),
    plain("after_commit_before_answer"),
    plain("after_claim", "workflow plain"),
    plain("before_execute", "workflow plain"),
    plain("before_execute", "step second"),
    plain("after_execute", "step second", twice="second"),
    plain("before_commit", nth=3, twice="second"),
    plain("after_commit_before_answer", nth=3),
    plain("after_record", "step second"),
    plain("after_execute", "workflow plain"),
    plain("before_finish", "workflow plain"),
    plain("before_commit", nth=5),
    plain("after_commit_before_answer", nth=5),
    plain("after_finish", "workflow plain"),
]

# A parent commits: claim, a step, the child, a step, end. Its child: claim, a step, end.
CHILD = [
    child("before_child_start", "workflow inner"),
    child("before_commit", nth=3),
    child("after_commit_before_answer", nth=3),
    child("after_child_start", "workflow inner"),
    child("before_ring", "workflow inner"),
    child("before_claim", "run", placement=BEGUN),
    child("after_claim", "workflow inner", placement=BEGUN),
    child("before_execute", "workflow inner", placement=BEGUN),
    child("after_execute", "workflow inner", placement=BEGUN),
    child("before_finish", "workflow inner", placement=BEGUN),
    child("before_commit", nth=3, placement=BEGUN),
    child("after_commit_before_answer", nth=3, placement=BEGUN),
    child("after_finish", "workflow inner", placement=BEGUN),
    child("after_execute", "workflow inner", placement=ALL),
    child("after_finish", "workflow inner", placement=ALL),
]

# An agent's coordinator commits: claim, memory, turn 1, tool, turn 2, end. A turn: claim, outcome.
TURN = [
    turn("before_commit", nth=3),
    turn("after_commit_before_answer", nth=3),
    turn("before_commit", nth=6),
    turn("after_commit_before_answer", nth=6),
    turn("before_ring", "turn"),
    turn("before_claim", "turn", placement=BEGUN),
    turn("after_claim", "turn", placement=BEGUN),
    turn("before_execute", "turn", placement=BEGUN),
    turn("after_execute", "turn", placement=BEGUN, calls_again=1),
    turn("before_commit", nth=2, placement=BEGUN, calls_again=1),
    turn("after_commit_before_answer", nth=2, placement=BEGUN),
    turn("after_record", "turn", placement=BEGUN),
    turn("after_record", "turn", placement=ALL),
]

# A tool is a run: claim, end.
TOOLS = [
    tool("before_child_start", "tool"),
    tool("before_commit", nth=4),
    tool("after_commit_before_answer", nth=4),
    tool("after_child_start", "tool"),
    tool("before_ring", "tool"),
    tool("before_claim", "run", placement=TOOL),
    tool("after_claim", "tool", placement=TOOL),
    tool("before_execute", "tool", placement=TOOL),
    tool("after_execute", "tool", placement=TOOL, twice="charge"),
    tool("before_finish", "tool", placement=TOOL, twice="charge"),
    tool("before_commit", nth=2, placement=TOOL, twice="charge"),
    tool("after_commit_before_answer", nth=2, placement=TOOL),
    tool("after_finish", "tool", placement=TOOL),
]

CASES = [*PLAIN, *CHILD, *TURN, *TOOLS]
KINDS = ("plain", "child", "turn", "tool")
REFERENCES = {kind: Case(kind, "none") for kind in KINDS}  # run without a fault
EFFECTS = {
    "plain": ["first", "second", "third"],
    "child": ["before", "inside", "after"],
    "turn": ["charge"],
    "tool": ["charge"],
}
