"""Programs as data: what a run is to do, as JSON that one interpreter executes.

A node is named by its path, its place in the tree: the third node of the second branch of node 4 is
``4.1.2``.
Paths are the keys of steps and the names of side effects; those of a child go on from the child's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Path = str
FOREVER = 1000  # failures: more than any number of retries
UNHEARD_SECONDS = 0.3  # how long is waited for what never comes
OVERDUE_SECONDS = 1  # how long a child may run that would run for ever


class Node(BaseModel):
    """A thing to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(Node):
    """A side effect that fails so many times first; `delay`: seconds before the first retry.

    It fails no more often than it is tried again, else for ever: a try that is lost with its worker counts
    as a failure of the effect, but not of the step.
    """

    kind: Literal["step"] = "step"
    sync: bool = False
    fails: int = Field(0, ge=0)
    retries: int = Field(2, ge=0)
    delay: float = 0.02

    @model_validator(mode="after")
    def _fails_for_a_while_or_for_ever(self) -> Self:
        if self.retries < self.fails != FOREVER:
            raise ValueError(f"a step of {self.retries} retries fails that often at most, or {FOREVER} times")
        return self


class Once(Node):
    """A side effect that happens at most once."""

    kind: Literal["once"] = "once"
    sync: bool = False


class Timer(Node):
    """A pause: in memory or, beyond the wait threshold, parked."""

    kind: Literal["timer"] = "timer"
    seconds: float = Field(0.05, gt=0, le=5)


class Draw(Node):
    """A value that would be another one each time, used by a side effect."""

    kind: Literal["draw"] = "draw"
    what: Literal["uuid", "now", "random"] = "uuid"


class Patch(Node):
    """A question whether a patch is in force: every run here begins with it."""

    kind: Literal["patch"] = "patch"


class Progress(Node):
    """An event for whoever follows the run."""

    kind: Literal["progress"] = "progress"


class Ask(Node):
    """A question to somebody outside, who answers in time, before it is asked, twice, or never."""

    kind: Literal["ask"] = "ask"
    answered: Literal["late", "early", "twice", "never"] = "late"


class Reply(Node):
    """A question that a branch beside it answers."""

    kind: Literal["reply"] = "reply"


class Hear(Node):
    """An event that is published before, beside, or never, and waited for."""

    kind: Literal["hear"] = "hear"
    published: Literal["before", "beside", "never"] = "beside"


class Raise(Node):
    """An exception outside of every step, so many times: the whole run is tried again."""

    kind: Literal["raise"] = "raise"
    times: int = Field(1, ge=1, le=2)


class Fail(Node):
    """The end of the run, as failed."""

    kind: Literal["fail"] = "fail"


class Tool(Node):
    """A tool, called as a child; its side effect blocks a thread or sleeps on the loop."""

    kind: Literal["tool"] = "tool"
    sync: bool = False


class Talk(Node):
    """An agent's run: so many rounds of two tool calls each, then an answer."""

    kind: Literal["talk"] = "talk"
    rounds: int = Field(0, ge=0, le=2)
    streamed: bool = False
    refused: bool = False  # the model wants each call once more


class Child(Node):
    """A child run that is waited for; its failure is handled."""

    kind: Literal["child"] = "child"
    nodes: tuple[AnyNode, ...] = ()


class Spawn(Node):
    """A child run that nobody waits for, until it says by an event that it is done."""

    kind: Literal["spawn"] = "spawn"
    nodes: tuple[AnyNode, ...] = ()


class Batch(Node):
    """Child runs that are started and joined together."""

    kind: Literal["batch"] = "batch"
    children: tuple[tuple[AnyNode, ...], ...] = ()


class Parallel(Node):
    """Branches of the run itself, side by side."""

    kind: Literal["parallel"] = "parallel"
    branches: tuple[tuple[AnyNode, ...], ...] = ()


class Limited(Node):
    """A child of two side effects in a queue with a limit."""

    kind: Literal["limited"] = "limited"


class Cancelled(Node):
    """A child that is cancelled from outside while it waits; handled."""

    kind: Literal["cancelled"] = "cancelled"


class Overdue(Node):
    """A child that uses up its time; handled."""

    kind: Literal["overdue"] = "overdue"


AnyNode = Annotated[
    Step
    | Once
    | Timer
    | Draw
    | Patch
    | Progress
    | Ask
    | Reply
    | Hear
    | Raise
    | Fail
    | Tool
    | Talk
    | Child
    | Spawn
    | Batch
    | Parallel
    | Limited
    | Cancelled
    | Overdue,
    Field(discriminator="kind"),
]
Nodes = tuple[AnyNode, ...]
for holder in (Child, Spawn, Batch, Parallel):
    holder.model_rebuild()


class Program(Node):
    """A whole program."""

    nodes: Nodes = ()

    @property
    def size(self) -> int:
        return sum(1 for _ in everything(self.nodes))


class Job(BaseModel):
    """What a run of the interpreter is given: a part of a program, and where it is in the whole."""

    path: Path = ""
    nodes: Nodes = ()


class Script(BaseModel):
    """What a model is asked to do, as the input of an agent's run."""

    path: Path
    rounds: int
    refused: bool

    def tool_path(self, number: int, place: int) -> Path:
        """Return the path of a tool call's side effect: of a round, counted from 0, the first or second."""
        return below(below(self.path, number), place)

    @property
    def answer(self) -> str:
        return " ".join([f"After {self.rounds} rounds", *(["all", "is", "done", "at"]), self.path])


def below(path: Path, place: int) -> Path:
    """Return the path of something inside the node at `path`."""
    return f"{path}.{place}" if path else str(place)


def inside(path: Path, node: Node) -> Iterator[tuple[Path, Nodes]]:
    """Yield the parts of a program that a node holds, with their paths."""
    match node:
        case Child() | Spawn():
            yield path, node.nodes
        case Batch(children=parts) | Parallel(branches=parts):
            yield from ((below(path, place), part) for place, part in enumerate(parts))


def everything(nodes: Nodes, path: Path = "") -> Iterator[tuple[Path, Node]]:
    """Yield every node with its path, from outside to inside."""
    for place, node in enumerate(nodes):
        here = below(path, place)
        yield here, node
        for where, part in inside(here, node):
            yield from everything(part, where)
