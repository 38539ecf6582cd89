"""Several hosts on one machine: network namespaces, and a router that loses, delays and throttles at will."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

ROUTER = Path(__file__).with_name("router.py")
NAMESPACE_PREFIX = "polos-hosts-"
SUBNETS = "198.18"  # of RFC 2544: for tests of networks, hence used by nobody


@dataclass(frozen=True)
class Host:
    """A network namespace; an empty one is ours."""

    namespace: str
    address: str

    @property
    def prefix(self) -> list[str]:
        """What a command begins with to run there."""
        return ["ip", "netns", "exec", self.namespace] if self.namespace else []


def why_not() -> str:
    """Return why there can be no namespaces here; empty where there can."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "there is no 'ip' on PATH (apt-get install iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    probe = f"{NAMESPACE_PREFIX}{os.getpid()}-probe"
    if _ip("netns", "add", probe, check=False):
        return "network namespaces cannot be made here"
    _ip("netns", "del", probe)
    return ""


class Network:
    """Hosts and links. Use `network`."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._namespaces: list[str] = []
        self._router = subprocess.Popen(
            [sys.executable, str(ROUTER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._subnet = _free_subnet()
        self.here = self._joined("", next(self._numbers))

    def add_host(self) -> Host:
        """Return a new host that reaches all others; there is room for 250."""
        number = next(self._numbers)
        namespace = f"{NAMESPACE_PREFIX}{os.getpid()}-{self._subnet}-{number}"
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        return self._joined(namespace, number)

    def _joined(self, namespace: str, number: int) -> Host:
        host = Host(namespace, f"{SUBNETS}.{self._subnet}.{number}")
        self._tell("add", namespace, f"polos{self._subnet}n{number}", host.address)
        return host

    def link(self, source: Host, destination: Host, **rule: float) -> None:
        """Make one direction lossy, late or slow; without a rule, as good as it was."""
        self._tell("link", source.address, destination.address, rule)

    def between(self, one: Host, other: Host, **rule: float) -> None:
        """Do that for both directions."""
        self.link(one, other, **rule)
        self.link(other, one, **rule)

    def close(self) -> None:
        """End the router, and the namespaces with their devices."""
        self._router.kill()
        self._router.wait()
        for namespace in self._namespaces:
            _ip("netns", "del", namespace)

    def _tell(self, *command: object) -> None:
        stdin, stdout = self._router.stdin, self._router.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()
        assert stdout.readline() == "done\n", f"the router failed at {command}"


@contextmanager
def network() -> Iterator[Network]:
    """Run a network while the context lasts."""
    _remove_what_the_dead_left()
    made = Network()
    try:
        yield made
    finally:
        made.close()


def _free_subnet() -> int:
    taken = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    start = os.getpid() % 250
    return next(
        number
        for number in ((start + step) % 250 + 1 for step in range(250))
        if f" {SUBNETS}.{number}." not in taken
    )


def _remove_what_the_dead_left() -> None:
    told = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for name in (line.split()[0] for line in told.splitlines() if line.startswith(NAMESPACE_PREFIX)):
        pid = name.removeprefix(NAMESPACE_PREFIX).partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)


def _ip(*arguments: str, check: bool = True) -> int:
    return subprocess.run(["ip", *arguments], check=check, stderr=subprocess.DEVNULL).returncode
