"""A script that hosts a worker in a thread of itself, busy as its argument says, and then just ends."""

import asyncio
import os
import sys
import threading
import time

from celery import Celery

from polos.worker.bridge import AsyncTask
from polos.worker.thread_worker import WorkerThread

SERVER = f"redis://127.0.0.1:{os.environ['POOL_TEST_PORT']}"
app = Celery("host", broker=f"{SERVER}/0", task_cls=AsyncTask, set_as_current=False)
app.conf.broker_connection_retry_on_startup = True
queue = f"host-{os.getpid()}"
started = threading.Event()


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())  # in one piece, whichever thread says it


@app.task(shared=False)
async def busy_async() -> None:
    started.set()
    try:
        await asyncio.sleep(600)
    finally:
        say("unwound")


@app.task(shared=False)
def busy_sync() -> None:
    started.set()
    time.sleep(600)


@app.task(shared=False)
async def busy_in_thread() -> None:
    started.set()
    await asyncio.to_thread(time.sleep, 600)


@app.task(shared=False)
async def quick() -> None:
    say("ran")
    started.set()


def main(mode: str) -> None:
    worker = WorkerThread(app, concurrency=4, queues=[queue], name="host", on_drain=lambda: say("drained"))
    worker.start()
    tasks = {"busy_async": busy_async, "busy_sync": busy_sync, "busy_in_thread": busy_in_thread}
    task = tasks.get(mode.partition("-")[0], quick)
    if mode == "input":
        say("ready")
        threading.Timer(0, task.apply_async, kwargs={"queue": queue}).start()
        input()
    else:
        task.apply_async(queue=queue)
    if not started.wait(10):
        raise TimeoutError(f"no task ran; worker error: {worker.error!r}")
    if mode == "stopped":
        worker.stop()
        worker.stop()
    say("ends")
    if mode.endswith("-exit"):
        sys.exit(3)
    if mode.endswith("-error"):
        raise RuntimeError("the script failed")


main(sys.argv[1])
