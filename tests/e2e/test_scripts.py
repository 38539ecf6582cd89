"""Scripts without any configuration, as users start them: what they need, leave behind, and pick up again."""

from __future__ import annotations

import time

import pytest
from models.servers import ModelServer
from scripts import Folder, is_running, wait_until

pytestmark = pytest.mark.timeout(120)

AGENT = """
class City(BaseModel):
    city: str

@tool(description="The weather in a city")
async def get_weather(ctx: WorkflowContext, input: City) -> dict:
    return {"city": input.city, "degrees": 21.5}

agent = Agent(id="weather", provider="openai", model="gpt-4o", tools=[get_weather])
"""
COUNTED = """
def counted(name):
    with open("calls.txt", "a") as calls:
        print(name, file=calls)
    return name

@workflow
async def long(ctx: WorkflowContext, payload: dict) -> list:
    first = await ctx.step.run("first", counted, "first")
    if not Path("go-on").exists():
        Path("run-id").write_text(ctx.execution_id)
        say("begun", ctx.execution_id)
    while not Path("go-on").exists():
        await asyncio.sleep(0.01)
    return [first, await ctx.step.run("second", counted, "second")]
"""
BEGINS = (
    COUNTED
    + """
async def main():
    async with PolosClient() as client:
        handle = await long.invoke(client, {})
        await client.wait(handle.id)

asyncio.run(main())
"""
)
GOES_ON = (
    COUNTED
    + """
async def main():
    async with Polos() as polos:
        record = await polos.wait(Path("run-id").read_text())
        say(record["status"], record["result"], record["retry_count"])

asyncio.run(main())
"""
)


def test_an_agent_runs_with_nothing_but_a_key(folder: Folder, llmock: ModelServer) -> None:
    llmock.calls(("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Oslo"}))
    llmock.says("Both are mild.")
    llmock.says("Once more.")
    folder.write(
        "script.py",
        AGENT
        + """
async def main():
    client = PolosClient()
    response = await agent.run(client, "Compare Paris and Oslo.")
    cities = [found.result["city"] for found in response.tool_results]
    say(response.result, cities, response.usage.total_tokens > 0)
    say((await agent.run("And again?")).result)

asyncio.run(main())
""",
    )
    script = folder.start("script.py")
    server = None
    while script.process.poll() is None:
        server = server or folder.server_pid()
        time.sleep(0.01)

    assert script.ends().splitlines() == ["Both are mild. ['Paris', 'Oslo'] True", "Once more."]
    assert (folder.home / ".gitignore").read_text() == "*\n"
    assert server
    wait_until(lambda: not is_running(server))  # nobody uses it any more


def test_the_default_client_works_from_one_loop_after_another(folder: Folder) -> None:
    folder.write(
        "script.py",
        """
        @workflow
        async def double(ctx: WorkflowContext, payload: dict) -> int:
            return payload["n"] * 2

        started = time.monotonic()
        say([asyncio.run(double.run({"n": n})) for n in range(3)])
        say(time.monotonic() - started < 5)
        """,
    )
    assert folder.start("script.py").ends().splitlines() == ["[0, 2, 4]", "True"]


def test_a_script_that_ends_with_unfinished_work_ends_soon_and_the_next_goes_on(folder: Folder) -> None:
    folder.write(
        "begins.py",
        COUNTED
        + """
async def main():
    client = PolosClient()
    handle = await long.invoke(client, {})
    Path("run-id").write_text(handle.id)
    while not Path("calls.txt").exists():
        await asyncio.sleep(0.01)
    say("leaving")

asyncio.run(main())
""",
    )
    folder.write("goes_on.py", GOES_ON)
    first = folder.start("begins.py")
    first.wait_for("leaving")
    left = time.monotonic()
    first.ends()
    assert time.monotonic() - left < 3.5  # drained for 1.5 s, then handed back

    (folder.path / "go-on").touch()
    assert "completed ['first', 'second'] 0" in folder.start("goes_on.py").ends()
    assert (folder.path / "calls.txt").read_text().split() == ["first", "second"]


def test_an_interrupted_script_ends_soon_and_the_next_goes_on(folder: Folder) -> None:
    folder.write("begins.py", BEGINS)
    folder.write("goes_on.py", GOES_ON)
    first = folder.start("begins.py")
    first.wait_for("begun")
    server = folder.server_pid()
    first.interrupt()
    interrupted = time.monotonic()
    text = first.ends(code=None)
    assert time.monotonic() - interrupted < 5
    assert "KeyboardInterrupt" in text
    assert is_running(server)  # the terminal's signal was not for it

    (folder.path / "go-on").touch()
    assert "completed ['first', 'second'] 0" in folder.start("goes_on.py").ends()
    assert (folder.path / "calls.txt").read_text().split() == ["first", "second"]


def test_one_interrupt_ends_a_script_that_asks_its_user(folder: Folder) -> None:
    folder.write(
        "asks.py",
        """
        async def main():
            try:
                async with Polos():
                    say("asking")
                    os.read(os.pipe()[0], 1)  # blocks the loop, as input() does
            finally:
                say("stopped")

        asyncio.run(main())
        """,
    )
    script = folder.start("asks.py")
    script.wait_for("asking")
    script.interrupt()
    text = script.ends(code=None)
    assert "stopped" in text
    assert "KeyboardInterrupt" in text
    assert "CancelledError" not in text  # the worker was stopped in order


def test_what_a_killed_script_ran_is_gone_on_with_by_the_next(folder: Folder) -> None:
    folder.write("begins.py", BEGINS)
    folder.write("goes_on.py", GOES_ON)
    first = folder.start("begins.py")
    first.wait_for("begun")
    first.kill()

    (folder.path / "go-on").touch()
    assert "completed ['first', 'second'] 0" in folder.start("goes_on.py").ends()
    assert (folder.path / "calls.txt").read_text().split() == ["first", "second"]


def test_two_scripts_with_different_definitions_share_a_folder(folder: Folder) -> None:
    for name, other in (("left", "right"), ("right", "left")):
        folder.write(
            f"{name}.py",
            f"""
            @workflow(id="{name}")
            async def own(ctx: WorkflowContext, payload: dict) -> str:
                return f"{name} {{payload['n']}} {{os.getpid()}}"

            async def main():
                async with Polos() as polos:
                    mine = [await own.run(polos, {{"n": n}}) for n in range(3)]
                    say(mine == [f"{name} {{n}} {{os.getpid()}}" for n in range(3)])
                    say("ready")
                    await until(Path("both").exists)
                    handle = await polos.invoke("{other}", {{"n": 9}})
                    say((await polos.wait(handle.id))["result"].startswith("{other} 9"))
                    Path("{name}.done").touch()
                    await until(Path("{other}.done").exists)

            asyncio.run(main())
            """,
        )
    scripts = [folder.start("left.py"), folder.start("right.py")]
    for script in scripts:
        script.wait_for("ready")
    (folder.path / "both").touch()
    for script in scripts:
        assert script.ends().splitlines() == ["True", "ready", "True"]


def test_sync_code_that_hangs_does_not_keep_a_script_from_ending(folder: Folder) -> None:
    folder.write(
        "script.py",
        """
        def hang():
            say("hangs")
            time.sleep(600)

        @workflow
        async def hangs(ctx: WorkflowContext) -> None:
            await ctx.step.run("hang", hang)

        async def main():
            client = PolosClient()
            await hangs.invoke(client)
            await asyncio.sleep(1)

        asyncio.run(main())
        """,
    )
    script = folder.start("script.py")
    script.wait_for("hangs")
    script.ends(seconds=15)


def test_a_run_goes_on_by_the_database_while_the_embedded_server_is_killed(folder: Folder) -> None:
    folder.write(
        "script.py",
        """
        @workflow
        async def child(ctx: WorkflowContext, payload: dict) -> int:
            return payload["n"]

        @workflow
        async def parent(ctx: WorkflowContext) -> list:
            say("begun")
            while not Path("go-on").exists():
                await asyncio.sleep(0.01)
            return [await ctx.step.invoke_and_wait(str(n), child, {"n": n}) for n in range(3)]

        async def main():
            async with Polos() as polos:
                say(await parent.run(polos))

        asyncio.run(main())
        """,
    )
    script = folder.start("script.py")
    script.wait_for("begun")
    folder.kill_server()
    (folder.path / "go-on").touch()
    assert "[0, 1, 2]" in script.ends()
