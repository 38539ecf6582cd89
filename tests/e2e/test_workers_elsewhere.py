"""Scripts beside workers of their own process: who runs what, and what is said when nobody does."""

from __future__ import annotations

import time

import pytest
from scripts import Folder

pytestmark = pytest.mark.timeout(120)

DEFINITIONS = """
class Where(BaseModel):
    pid: int

@workflow
async def where(ctx: WorkflowContext) -> Where:
    return Where(pid=os.getpid())
"""
ASKS = (
    DEFINITIONS
    + """
async def main():
    async with PolosClient() as client:
        handle = await where.invoke(client)
        say("accepted")
        await client.wait(handle.id, timeout_seconds=30)
        found = (await handle.get(client))["result"]
        say(type(found).__module__, "here" if found.pid == os.getpid() else f"at {found.pid}")

if __name__ == "__main__":
    import logging
    logging.basicConfig(level=logging.WARNING, format="%(relativeCreated)d %(name)s: %(message)s")
    asyncio.run(main())
"""
)


def test_auto_leaves_the_work_to_a_live_worker_and_finds_classes_of_the_script(folder: Folder) -> None:
    folder.write("prog.py", ASKS)
    worker = folder.start_worker("prog")
    assert folder.start("prog.py").ends().splitlines()[-1] == f"__main__ at {worker.process.pid}"


def test_auto_starts_a_worker_when_the_live_one_does_not_offer_the_workflow(folder: Folder) -> None:
    folder.write("prog.py", ASKS)
    folder.write("other.py", "@workflow\nasync def other(ctx: WorkflowContext) -> None: ...\n")
    folder.start_worker("other")
    assert folder.start("prog.py").ends().splitlines()[-1] == "__main__ here"


def test_without_an_embedded_worker_run_says_soon_what_is_missing_and_goes_on_waiting(folder: Folder) -> None:
    folder.write("prog.py", ASKS)
    script = folder.start("prog.py", POLOS_EMBEDDED_WORKER="0")
    script.wait_for("accepted")
    accepted = time.monotonic()
    script.wait_for("No live worker serves workflow 'where'")
    assert time.monotonic() - accepted < 2
    [line] = [line for line in script.lines if "No live worker" in line]
    assert "'polos worker MODULE'" in line
    assert "POLOS_IMPORTS=MODULE celery -A polos worker" in line
    worker = folder.start_worker("prog")
    assert script.ends().splitlines()[-1] == f"__main__ at {worker.process.pid}"


def test_an_embedded_worker_may_be_demanded(folder: Folder) -> None:
    folder.write(
        "prog.py",
        DEFINITIONS
        + """
async def main():
    async with PolosClient() as client:
        await client.invoke("nobody-knows", {})
        import sqlite3
        say([kind for (kind,) in sqlite3.connect(".polos/polos.db").execute("SELECT kind FROM worker")])

asyncio.run(main())
""",
    )
    assert "['embedded']" in folder.start("prog.py", POLOS_EMBEDDED_WORKER="1").ends()


def test_a_run_of_something_nobody_knows_waits_until_a_worker_does(folder: Folder) -> None:
    folder.write(
        "prog.py",
        """
        async def main():
            async with PolosClient() as client:
                handle = await client.invoke("where", None)
                record = await client.wait(handle.id)
                say(record["status"], record["result"]["pid"])

        asyncio.run(main())
        """,
    )
    folder.write("defs.py", DEFINITIONS)
    script = folder.start("prog.py")
    script.wait_for("No live worker serves")
    worker = folder.start_worker("defs")
    assert script.ends().splitlines()[-1] == f"completed {worker.process.pid}"
