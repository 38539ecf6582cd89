"""The memory of an agent's session in a run: loaded once, made shorter when it must be, left at the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from polos import serialization
from polos.agents.asking import Loop, ask, ask_alone
from polos.agents.conversation import user_items
from polos.engine.inline import run_inline
from polos.errors import ContextOverflowError
from polos.journal.memory import (
    READ_HISTORY,
    READ_WATERMARK,
    NewMessage,
    NewSummary,
    Remembered,
    SessionKey,
    Watermark,
    history_params,
    watermark_of,
)
from polos.journal.statements import Rows
from polos.memory.compaction import compact, shortened
from polos.memory.estimates import estimate_message_tokens, estimate_tokens
from polos.memory.items import remembered
from polos.memory.summaries import build_summary_messages, is_summary_pair, summary_in
from polos.models.request import Item, ModelAnswer
from polos.settings import Settings
from polos.step_names import internal

if TYPE_CHECKING:
    from polos.engine.context import AgentContext
    from polos.journal.runs import Claim
    from polos.journal.writer import Journal

logger = logging.getLogger("polos.agents")

LOAD = "load_session_memory"
_SUMMARISER: dict[str, object] = {
    "tools": [],
    "temperature": None,
    "top_p": None,
    "max_output_tokens": None,
    "output_schema": None,
    "output_schema_name": None,
}


@dataclass
class Memory:
    """What a run has loaded of its session.

    Attributes:
        mark: How far it has read.
        history: What that is, as items of a conversation; it may begin with a summary pair.
        given: The input of the run.
        summary: What the conversation begins with now, if it begins with a summary.
        folded: The objects, in `history` and among the run's own items, for which it stands, by their ids.
        is_lost: Something was left out for which no summary stands: none is left in the session then.
    """

    key: SessionKey
    mark: Watermark
    history: list[Item]
    given: list[Item]
    longest_blob: int
    summary: str | None = None
    folded: dict[int, Item] = field(default_factory=dict)  # kept: an id may stand for another object later
    is_lost: bool = False

    @property
    def reference(self) -> dict[str, Any] | None:
        """What the row of a turn says instead of the history; None where there is none."""
        return asdict(self.mark) if self.history else None

    def left_by(self, own: Sequence[Item]) -> Remembered:
        """Return what the run leaves in its session: its input, and `own` beyond that."""
        before = self._kept(self.given)
        after = self._kept(own[len(self.given) :])
        kept = [*before, *after]
        return Remembered(
            self.key,
            messages=tuple(_message(item) for item in kept if item is not None),
            given=sum(item is not None for item in before),
            generation=self.mark.generation,
            watermark=self.mark.until,
            summary=self._summary(own, kept),
        )

    def _kept(self, items: Sequence[Item]) -> list[Item | None]:
        return remembered(items, longest_blob=self.longest_blob)

    def _summary(self, own: Sequence[Item], kept: Sequence[Item | None]) -> NewSummary | None:
        if self.summary is None or self.is_lost:
            return None
        rows = self.history[2:] if is_summary_pair(self.history) else self.history
        loaded = self._leading(rows)
        whole = self._leading(own) if loaded == len(rows) else 0
        if not loaded + whole:
            return None
        return NewSummary(
            self.summary,
            estimate_tokens(self.summary),
            loaded=self.mark.after + loaded,
            own=sum(item is not None for item in kept[:whole]),
        )

    def _leading(self, items: Sequence[Item]) -> int:
        """Return for how many of the first items the summary stands."""
        return next((place for place, item in enumerate(items) if id(item) not in self.folded), len(items))


async def load_memory(ctx: AgentContext, given: list[Item]) -> Memory:
    """Return the memory of a run's session, as far as there was any when it began.

    What a run has read is recorded as a watermark, not as messages. From here on the session remembers
    what the agent was asked, even if the run fails.
    """
    runtime, execution = ctx.step.engine
    key = _key(execution.claim)

    async def look() -> dict[str, Any]:
        return asdict(watermark_of(key, await runtime.journal.read(READ_WATERMARK, **key.params())))

    if execution.went_on_without(internal(LOAD)):  # begun by a version that remembered nothing
        mark = Watermark(key.session_id, key.agent)
    else:
        mark = Watermark(**await run_inline(runtime, execution, internal(LOAD), "run", look))
    history = await read_history(runtime.journal, execution.claim.project, mark)
    if not history and not mark.is_empty:  # a run that failed or was forked, and goes on
        logger.warning("Session %r was deleted: run %s goes on without it", key.session_id, ctx.execution_id)
    memory = Memory(
        key, mark, history, given, runtime.settings.session_max_blob_bytes, summary=summary_in(history)
    )
    execution.remembered = memory.left_by(given)
    return memory


async def read_history(journal: Journal, project: str, mark: Watermark) -> list[Item]:
    """Return what a watermark stands for: the summary pair, if there is one, and messages."""
    if mark.is_empty:
        return []
    return _history(await journal.read(READ_HISTORY, **history_params(project, mark)))


def _history(rows: Rows) -> list[Item]:
    items: list[Item] = []
    for number, said in rows:
        items += build_summary_messages(said) if number == 0 else [serialization.loads(said)]
    return items


def input_left(claim: Claim, settings: Settings) -> Remembered | None:
    """Return what a run leaves that ends before its code begins: what it was asked."""
    payload = serialization.loads(claim.input) if claim.input else None
    if not isinstance(payload, dict) or not isinstance(payload.get("input"), str | list):
        return None
    key = _key(claim)
    mark = Watermark(key.session_id, key.agent)
    given = user_items(payload["input"])
    return Memory(key, mark, [], given, settings.session_max_blob_bytes).left_by(given)


def _key(claim: Claim) -> SessionKey:
    return SessionKey(claim.project, claim.session_id or claim.root_id, claim.name)


def _message(item: Item) -> NewMessage:
    return NewMessage(serialization.dumps(item), estimate_message_tokens(item))


# -- making room


async def ask_in_room(
    loop: Loop, name: str, *, config: dict[str, object] | None, guarded: bool
) -> tuple[str, ModelAnswer]:
    """Return what `ask` does, with the name of the turn that gave it.

    A conversation that the provider refuses as too long is compacted, whatever it was estimated at, and sent
    once more, as a turn of its own.

    Raises:
        ContextOverflowError: It is too long, and nothing can be folded, or that was not enough.
        StepExecutionError: The model could not be made to answer.
    """
    try:
        return name, await ask(loop, name, config=config, guarded=guarded)
    except ContextOverflowError:
        if not await make_room(loop, refused=name):
            raise
    name += "_compacted" if ":" in name else ":compacted"
    return name, await ask(loop, name, config=config, guarded=guarded)


async def make_room(loop: Loop, *, refused: str | None = None) -> bool:
    """Fold what is old of the conversation into a summary, if it is too long; return whether anything was.

    Args:
        loop: The run on its way; the speaker's model makes the summary, within the speaker's limits.
        refused: The call that the provider has refused as too long, if one was.
    """
    memory = loop.memory
    force = refused is not None
    name = f"compaction:{refused}:overflow" if force else f"compaction:{loop.number}"
    was_made = _is_recorded(loop, name)
    if not force and not was_made and _is_recorded(loop, str(loop.number)):
        return False  # as it was decided before, whatever the limits are now

    def turn_of(key: str) -> str:
        return f"{name}:{key}" if key else name

    def is_recorded(key: str) -> bool:
        return _is_recorded(loop, turn_of(key))

    async def ask(key: str, messages: list[Item], *, system_prompt: str) -> str:
        config = {**_SUMMARISER, "system_prompt": system_prompt}
        answer = await ask_alone(loop, turn_of(key), messages, config)
        return answer.content or ""

    items = loop.conversation.items
    found = await compact(items, loop.speaker.compaction, ask, force=force, is_recorded=is_recorded)
    if found is None:
        return False
    if summary_in(items) != memory.summary or found.summary is None:
        memory.is_lost = True
    memory.folded |= {id(items[place]): items[place] for place in found.cut.folded}
    memory.summary = found.summary or summary_in(items)
    loop.conversation.replace(shortened(items, found))
    return True


def _is_recorded(loop: Loop, turn: str) -> bool:
    _, execution = loop.engine
    return execution.is_recorded(internal(f"turn:{turn}"))


def remember(loop: Loop) -> None:
    """Let the end of the run leave in the session what was said in it."""
    _, execution = loop.engine
    execution.remembered = loop.memory.left_by(loop.conversation.remembered)
