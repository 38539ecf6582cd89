"""`compact_if_needed`: compaction for conversations of a program's own, with a model call of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from polos.engine.runtime import Models
from polos.errors import StepExecutionError
from polos.memory.compaction import Ask, compact, shortened
from polos.memory.estimates import estimate_tokens
from polos.memory.summaries import build_summary_messages, is_summary_pair, summary_in
from polos.memory.types import CompactionResult, checked_limits
from polos.models import call as models
from polos.models.request import Item, ModelRequest
from polos.types import AgentConfig

if TYPE_CHECKING:
    from polos.engine.context import WorkflowContext


async def compact_if_needed(
    messages: list[Item],
    current_summary: str | None,
    config: Any,
    ctx: WorkflowContext | None,
    agent_config: AgentConfig,
    step_key_prefix: str = "compaction",
    *,
    force: bool = False,
) -> CompactionResult:
    """Shorten a conversation of a program's own, as agents do it with theirs.

    Args:
        messages: Items of a conversation; it may begin with a summary pair.
        current_summary: What stands for earlier messages, if the conversation does not begin with it.
        config: A `CompactionConfig`, or None for the defaults.
        ctx: Its model calls are steps of this run; None for none.
        agent_config: Provider and model that make the summary; its tools and its system prompt are not used.
        step_key_prefix: Begins the keys of those steps.
        force: Whatever the estimate says.
    """
    limits = checked_limits(config)
    known = current_summary if summary_in(messages) is None else summary_in(messages)
    pair = build_summary_messages(known) if known and not is_summary_pair(messages) else []
    items = [*pair, *messages]
    found = await compact(items, limits, _asking(ctx, agent_config, step_key_prefix), force=force)
    if found is None:
        return _result(messages, known, compacted=False)
    return _result(shortened(items, found), found.summary or known, compacted=True)


def _result(messages: list[Item], summary: str | None, *, compacted: bool) -> CompactionResult:
    said = messages[2:] if is_summary_pair(messages) else messages
    return CompactionResult(
        compacted=compacted,
        messages=messages,
        summary=summary,
        summary_tokens=estimate_tokens(summary),
        total_turns=sum(item.get("role") == "user" for item in said),
    )


def _asking(ctx: WorkflowContext | None, config: AgentConfig, prefix: str) -> Ask:
    async def ask(key: str, messages: list[Item], *, system_prompt: str) -> str:
        request = summary_request(config, messages, system_prompt)
        if ctx is None:
            return await _generated(models, request)
        runtime, _ = ctx.step.engine
        call = partial(_generated, runtime.models, request)
        return str(await ctx.step.run(f"{prefix}:{key}" if key else prefix, call))

    return ask


def summary_request(config: AgentConfig, messages: list[Item], system_prompt: str) -> ModelRequest:
    """Return the model call that makes a summary: the agent's model, without its tools and its prompt."""
    return ModelRequest(
        provider=config.provider,
        model=config.model,
        messages=messages,
        system_prompt=system_prompt,
        provider_base_url=config.provider_base_url,
        provider_llm_api=config.provider_llm_api,
    )


async def _generated(asked: Models, request: ModelRequest) -> str:
    try:
        return (await asked.generate(request)).content or ""
    except Exception as error:
        raise StepExecutionError(f"The model could not be made to summarise: {error}") from error
