"""What kills its process: a run, a tool, a turn. Cured once a file is there."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

from ledger import Ledger
from polos.llm.providers import LLMProvider, LLMResponse, register_provider
from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool, workflow

CURED = "cured"
POISON = "poison"  # its name in the ledger


class Dose(BaseModel):
    """How a process dies."""

    how: str


def _segfault() -> None:
    ctypes.string_at(0)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _eat() -> None:
    """Allocate until the kernel kills somebody; it is asked to choose us."""
    Path("/proc/self/oom_score_adj").write_text("1000")
    eaten = []
    while True:
        eaten.append(bytearray(b"x" * (16 << 20)))


DEATHS = {"segfault": _segfault, "kill": _kill, "oom": _eat}


def swallow(root: str, how: str) -> str:
    """Die, and leave a note of when."""
    if Path(os.environ["FAULT_CURE"]).exists():
        return CURED
    Ledger(os.environ["FAULT_LEDGER"]).write(root, POISON, "start")
    DEATHS[how]()
    time.sleep(60)  # a signal may strike another thread, a little later
    raise AssertionError("it lives")


@workflow(id="poison-run")
async def poison_run(ctx: WorkflowContext, dose: Dose) -> str:
    return swallow(ctx.root_execution_id, dose.how)


@workflow(id="poison-step")
async def poison_step(ctx: WorkflowContext, dose: Dose) -> str:
    """In a thread, after a step that is recorded."""
    await ctx.step.run("before", lambda: None)
    return str(await ctx.step.run("swallow", swallow, ctx.root_execution_id, dose.how))


@tool(id="poison-pill", description="Kills")
def poison_pill(ctx: WorkflowContext, dose: Dose) -> str:
    return swallow(ctx.root_execution_id, dose.how)


@workflow(id="poison-tool")
async def poison_tool(ctx: WorkflowContext, dose: Dose) -> str:
    return str(await ctx.step.invoke_and_wait("pill", poison_pill, dose))


@register_provider("arsenic")
class Arsenic(LLMProvider):
    """A client of a model that takes its process along; the model's name is how."""

    async def generate(self, messages: Any, model: str, *args: Any, **options: Any) -> LLMResponse:
        return LLMResponse(swallow("arsenic", model), {"input_tokens": 1, "output_tokens": 1})


poison_turn = Agent(id="poison-turn", provider="arsenic", model="segfault")
