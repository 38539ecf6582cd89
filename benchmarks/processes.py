"""What a process has used so far, as the Linux kernel counts it; zeros where there is no /proc."""

from __future__ import annotations

import os
from pathlib import Path

USER_AND_SYSTEM = (11, 12)  # fields of /proc/PID/stat after the name, which may hold anything
OF_ENDED_CHILDREN = (13, 14)
PARENT = 1


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, all threads, user and system."""
    return _ticks(_stat(pid), USER_AND_SYSTEM)


def family_cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of all its children, those that have ended included.

    One that ends in this moment counts twice or not at all.
    """
    own = _stat(pid)
    children = [fields for fields in map(_stat, _pids()) if fields and int(fields[PARENT]) == pid]
    total = _ticks(own, USER_AND_SYSTEM) + _ticks(own, OF_ENDED_CHILDREN)
    return total + sum(_ticks(child, USER_AND_SYSTEM) for child in children)


def _pids() -> list[int]:
    folder = Path("/proc")
    return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.exists() else []


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _ticks(fields: list[str], wanted: tuple[int, int]) -> float:
    return sum(int(fields[number]) for number in wanted if fields) / os.sysconf("SC_CLK_TCK")


def peak_memory_mb(pid: int) -> float:
    """Return the most resident memory a process has had, in MiB."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    [line] = [line for line in text.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024
