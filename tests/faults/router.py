"""A router between network namespaces, a process of its own: each host has a tun, each pair of hosts a link.

Reads commands from its standard input, one JSON list a line, and answers each with a line:
``["add", namespace, device, address]`` (an empty namespace is the one it was started in) and
``["link", from address, to address, {"lost": …, "delay_seconds": …, …}]``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass

TUNSETIFF = 0x400454CA
IFF_TUN_WITHOUT_HEADER = 0x0001 | 0x1000
LARGEST_PACKET = 65_536
PACKETS_AT_ONCE = 64
LONGEST_QUEUE_SECONDS = 2.0  # of a slow link; what comes then is lost, as in a router


@dataclass
class Link:
    """One direction between two hosts.

    Attributes:
        lost: Nothing arrives.
        bytes_per_second: 0 is as fast as it goes.
    """

    lost: bool = False
    delay_seconds: float = 0.0
    jitter_seconds: float = 0.0
    bytes_per_second: float = 0.0
    free_at: float = 0.0  # the last packet has left the sender
    last_at: float = 0.0  # and arrives: none overtakes another

    def arrival(self, size: int, now: float) -> float | None:
        """Return when a packet that is sent now arrives; None when it is lost."""
        if self.lost or self.free_at - now > LONGEST_QUEUE_SECONDS:
            return None
        if self.bytes_per_second:
            self.free_at = max(now, self.free_at) + size / self.bytes_per_second
        delay = self.delay_seconds + random.uniform(-1, 1) * self.jitter_seconds
        self.last_at = max(self.last_at, max(now, self.free_at) + max(delay, 0.0))
        return self.last_at


class Router:
    """Reads packets from all tuns and writes each to the one of its destination, when its link says."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tuns: dict[bytes, int] = {}
        self._links: dict[tuple[bytes, bytes], Link] = {}

    def add(self, namespace: str, device: str, address: str) -> None:
        """Give a namespace a device with this address."""
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN_WITHOUT_HEADER))
        if namespace:
            _ip("link", "set", device, "netns", namespace)
        there = ["-n", namespace] if namespace else []
        _ip(*there, "addr", "add", f"{address}/24", "dev", device)
        _ip(*there, "link", "set", device, "up")
        self._tuns[socket.inet_aton(address)] = tun
        self._loop.add_reader(tun, self._take, tun)

    def link(self, source: str, destination: str, rule: dict[str, float]) -> None:
        """Make a link behave from now on."""
        self._links[socket.inet_aton(source), socket.inet_aton(destination)] = Link(**rule)

    def _take(self, tun: int) -> None:
        for _ in range(PACKETS_AT_ONCE):
            try:
                packet = os.read(tun, LARGEST_PACKET)
            except BlockingIOError:
                return
            if packet[0] >> 4 == 4:
                self._forward(packet)

    def _forward(self, packet: bytes) -> None:
        source, destination = packet[12:16], packet[16:20]
        if (out := self._tuns.get(destination)) is None:
            return
        link = self._links.get((source, destination))
        now = self._loop.time()
        arrives = now if link is None else link.arrival(len(packet), now)
        if arrives is None:
            return
        if arrives <= now:
            _write(out, packet)
        else:
            self._loop.call_at(arrives, _write, out, packet)


def _write(tun: int, packet: bytes) -> None:
    with contextlib.suppress(OSError):  # a full queue, or a device that goes: networks lose packets
        os.write(tun, packet)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


async def main() -> None:
    loop = asyncio.get_running_loop()
    router = Router()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        name, *arguments = json.loads(line)
        {"add": router.add, "link": router.link}[name](*arguments)
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
