"""Where figures come from: the machine, the versions of what took part, the commit."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import redis

PACKAGES = ("polos", "celery", "kombu", "redis", "psycopg", "sqlalchemy", "httpx", "uvloop", "litellm")
REPOSITORY = Path(__file__).parents[1]
UNKNOWN = "unknown"


def machine() -> dict[str, Any]:
    """Return what the figures were taken on, and how much else it did: `load` is that of the last minute."""
    return {
        "cores": os.cpu_count(),
        "processor": _field("/proc/cpuinfo", "model name"),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions(*, valkey_url: str, postgres_url: str | None) -> dict[str, str]:
    """Return the versions of Python, of packages and of the servers."""
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    found |= {name: version(name) for name in PACKAGES}
    with closing(redis.Redis.from_url(valkey_url)) as server:
        about: dict[str, Any] = server.info("server")
    found["valkey"] = str(about.get("valkey_version") or about["redis_version"])
    if postgres_url is not None:
        with psycopg.connect(postgres_url) as server:
            found["postgres"] = server.execute("SHOW server_version").fetchone()[0]  # type: ignore[index]
    return found


def commit() -> dict[str, Any]:
    """Return the commit of this checkout, and whether files differ from it."""
    return {"id": _git("rev-parse", "HEAD") or UNKNOWN, "is_changed": bool(_git("status", "--porcelain"))}


def _git(*arguments: str) -> str:
    try:
        ended = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return ended.stdout.strip()


def _field(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return UNKNOWN
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), UNKNOWN)
