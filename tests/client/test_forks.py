"""Sync clients in processes that fork, and at the end of the interpreter; on both ways."""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripts import Script
from sites import Site

pytestmark = pytest.mark.timeout(120)

FORKS = """
client = PolosClient()

def double(n):
    handle = client.sync.invoke("client-double", {"n": n})
    return client.sync.wait(handle.id, timeout_seconds=20)["result"]["n"]

def forked(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 1
        except BaseException as error:
            say(repr(error))
        finally:
            os._exit(code)
    return pid

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
AFTER_USE = (
    FORKS
    + """
assert double(1) == 2
children = [forked(lambda: double(n) == 2 * n) for n in range(3)]
say(double(5))
say([ended(pid) for pid in children])
say(double(6))

stream = client.sync.follow(client.sync.invoke("client-steps", {"n": 1}).id)
next(stream)

def goes_on():
    try:
        next(stream)
    except RuntimeError as error:
        return "its process forked" in str(error)

say(ended(forked(goes_on)), list(stream)[-1].event_type)
"""
)
DURING_USE = (
    FORKS
    + """
import threading
stop = threading.Event()

def use():
    while not stop.is_set():
        double(1)

double(1)  # a fork in the middle of an import is beyond help
threads = [threading.Thread(target=use) for _ in range(2)]
for thread in threads:
    thread.start()
say([ended(forked(lambda: double(3) == 6)) for _ in range(4)])
stop.set()
for thread in threads:
    thread.join()
"""
)
WITHOUT_CLOSING = """
import atexit, threading
client = PolosClient()
handle = client.sync.invoke("client-gate", {"file": "never"})
stream = client.sync.follow(handle.id)
next(stream)
threading.Thread(target=client.sync.wait, args=(handle.id,), daemon=True).start()
atexit.register(lambda: say("at exit", client.sync.cancel_execution(handle.id)))
say("leaving")
"""
WEB = """
import json
from polos.client import PolosClient

client = PolosClient()
first = client.sync.invoke("client-double", {"n": 0})  # before the fork

def app(environ, start_response):
    n = int(environ["QUERY_STRING"])
    handle = client.sync.invoke("client-double", {"n": n})
    record = client.sync.wait(handle.id, timeout_seconds=20)
    names = [event.event_type for event in client.sync.follow(handle.id)]
    found = {"pid": os.getpid(), "n": record["result"]["n"], "last": names[-1]}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found).encode()]
"""


def environment(site: Site, way: str) -> dict[str, str]:
    http = {"POLOS_API_URL": site.url, "POLOS_API_KEY": site.keys["default"]}
    return http if way == "http" else {}


def say_of(site: Site, way: str, source: str) -> list[str]:
    """Return what a script says that ends by itself, without a word too many."""
    site.folder.write("script.py", source)
    quiet = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}  # Python warns of forks of threaded processes
    script = site.folder.start("script.py", **environment(site, way), **quiet)
    return script.ends(seconds=30).splitlines()


def test_children_use_a_client_their_parent_has_used(site: Site, way: str) -> None:
    """And so does the parent, meanwhile and afterwards. An iteration stays with the process that began it."""
    assert say_of(site, way, AFTER_USE) == ["10", "[0, 0, 0]", "12", "0 workflow_finish"]


def test_a_fork_in_the_middle_of_calls_leaves_no_lock_behind(site: Site, way: str) -> None:
    assert say_of(site, way, DURING_USE) == [str([0] * 4)]


def test_a_program_that_closes_nothing_ends_at_once_and_quietly(site: Site, way: str) -> None:
    """With a stream that is open and a thread that waits; a handler at the exit can still use the client."""
    site.folder.write("script.py", WITHOUT_CLOSING)
    script = site.folder.start("script.py", **environment(site, way))
    script.wait_for("leaving")

    assert script.ends(seconds=5).splitlines() == ["leaving", "at exit True"]


# -- a web server that forks


@pytest.fixture
def web(site: Site, way: str) -> Iterator[str]:
    """gunicorn with two workers of an app that was loaded, and its client used, before they were forked."""
    site.folder.write("web.py", WEB)
    command = [sys.executable, "-m", "gunicorn", "web:app", "--preload", "--workers", "2", "--threads", "4"]
    server: Script = site.folder.command(
        *command, "--bind", "127.0.0.1:0", "--graceful-timeout", "5", **environment(site, way)
    )
    for _ in range(2):
        server.wait_for("Booting worker with pid")
    found = re.search(r"Listening at: (http://\S+)", server.text)
    assert found is not None, server.text
    yield found[1]
    server.process.terminate()
    text = server.ends(seconds=20)
    assert "Traceback" not in text, text


def test_each_worker_of_a_preloaded_app_starts_runs_and_waits(web: str) -> None:
    def ask(n: int) -> dict[str, object]:
        with urllib.request.urlopen(f"{web}/?{n}", timeout=30) as answer:
            found: dict[str, object] = json.load(answer)
            return found

    pids: set[object] = set()
    deadline = time.monotonic() + 30
    with ThreadPoolExecutor(8) as threads:
        while len(pids) < 2:  # the kernel chooses who gets a request
            assert time.monotonic() < deadline, "one of the two never answered"
            found = list(threads.map(ask, range(16)))
            assert [one["n"] for one in found] == [2 * n for n in range(16)]
            assert {one["last"] for one in found} == {"workflow_finish"}
            pids |= {one["pid"] for one in found}
