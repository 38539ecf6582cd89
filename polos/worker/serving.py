"""What a doorbell makes a worker do: execute the run or turn it names, or pass it on."""

from __future__ import annotations

from polos.agents.turn import execute_turn
from polos.current import Place, current_place
from polos.engine.coordinator import coordinate
from polos.engine.runtime import Runtime, Slot
from polos.step_names import shown
from polos.worker.forwarding import forward, may_serve

HELD_ELSEWHERE = "held elsewhere"


async def serve_run(runtime: Runtime, run_id: str, slot: Slot, *, label: str | None) -> str:
    """Execute a run as far as it goes; return what became of it."""
    current_place.set(Place(run_id))
    if not may_serve(runtime, label):
        return await forward(runtime, run_id)
    became = await coordinate(runtime, run_id, slot)
    return await forward(runtime, run_id) if became == HELD_ELSEWHERE else became


async def serve_turn(runtime: Runtime, run_id: str, step: str, slot: Slot, *, label: str | None) -> str:
    """Execute a turn; return what became of it."""
    current_place.set(Place(run_id, shown(step)))
    if not may_serve(runtime, label):
        return await forward(runtime, run_id, step)
    became = await execute_turn(runtime, run_id, step, slot)
    return await forward(runtime, run_id, step) if became == HELD_ELSEWHERE else became
