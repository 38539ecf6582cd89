"""Changes of code that runs under way do not follow: decided once for each run, and for ever."""

from __future__ import annotations

from polos.engine.execution import Execution
from polos.engine.inline import run_inline
from polos.engine.runtime import Runtime
from polos.errors import StepExecutionError
from polos.step_names import internal


async def is_patched(runtime: Runtime, execution: Execution, name: str) -> bool:
    """Return whether the run follows patch `name`; it may be asked any number of times."""
    if not isinstance(name, str) or not name:
        raise StepExecutionError(f"The name of a patch must be a non-empty string, not {name!r}")
    execution.check_open()
    step = internal(f"patched:{name}")
    decided = execution.patches.get(name)
    if decided is None and execution.went_on_without(step):
        decided = execution.patches[name] = False
    if decided is not None:
        return decided
    execution.patches[name] = True

    async def reached() -> bool:
        return True

    await run_inline(runtime, execution, step, "patched", reached)
    return True
