"""Workers whose clocks are wrong, and whose event loop somebody's code stands on."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from scripts import Folder

pytestmark = pytest.mark.timeout(120)
FLOWS = """
    real, skew = time.time, float(os.environ.get("SKEW", "0"))
    time.time = lambda: real() + skew  # libraries see the wrong time as well


    @workflow(id="odd-blocks")
    async def blocks(ctx: WorkflowContext) -> str:
        time.sleep(3.5)  # longer than a worker may be silent
        return await ctx.step.run("after", lambda: "done")


    @workflow(id="odd-naps")
    async def naps(ctx: WorkflowContext, payload: dict) -> int:
        await ctx.step.wait_for("nap", seconds=1)
        return payload["n"]
"""
PROGRAM = """
    from flows import blocks, naps


    async def main():
        async with PolosClient() as client:
            napping = [naps.run(client, {"n": n}) for n in range(6)]
            say(await asyncio.gather(blocks.run(client), *napping))


    asyncio.run(main())
"""


@pytest.fixture
def odd_folder(folder: Folder) -> Folder:
    folder.environment |= {
        "POLOS_SILENCE_LIMIT_SECONDS": "2.5",
        "POLOS_BEAT_SECONDS": "0.3",
        "POLOS_WAIT_THRESHOLD_SECONDS": "0.2",  # a sweeper ends the naps
        "POLOS_EMBEDDED_WORKER": "0",
    }
    folder.write("flows.py", FLOWS)
    folder.write("program.py", PROGRAM)
    return folder


def test_wrong_clocks_and_a_blocked_loop_cost_nothing(odd_folder: Folder) -> None:
    """Leases, timers and ends go by the database's clock, and a worker beats while its loop stands."""
    ahead = odd_folder.start_worker("flows", SKEW="600")
    behind = odd_folder.start_worker("flows", SKEW="-600")
    program = odd_folder.start("program.py")
    assert program.ends(seconds=40).splitlines() == ["['done', 0, 1, 2, 3, 4, 5]"]
    with closing(sqlite3.connect(odd_folder.home / "polos.db")) as journal:
        attempts = dict(journal.execute("SELECT name, max(attempt) FROM run GROUP BY name"))
        slept = [
            row[0] for row in journal.execute("SELECT finished_at - started_at FROM step WHERE kind='timer'")
        ]
    assert attempts["odd-blocks"] == 1
    assert len(slept) == 6
    assert all(0.99 <= seconds < 6 for seconds in slept), slept
    for worker in (ahead, behind):
        assert "is dead" not in worker.text
