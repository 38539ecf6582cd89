"""Checks of this machine: versions, and room for open files."""

from __future__ import annotations

import platform
import resource
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from polos.cli.doctor.findings import Check, Finding, ok, wrong
from polos.settings import Settings
from polos.worker.broker import find_broker

PACKAGES = ("polos", "celery", "kombu", "redis", "sqlalchemy", "litellm", "flower")
DEFAULT_CONCURRENCY = 100  # of a worker, when nothing else is said
MIN_OPEN_FILES = 1024
FILES_PER_SLOT = 4  # a model call has a connection, a tool perhaps some more


def machine_checks(settings: Settings) -> dict[str, Check]:
    """Return the checks of this machine, by what they are about."""
    return {"versions": check_versions, "open files": partial(check_open_files, settings)}


def check_versions() -> Iterator[Finding]:
    """Tell what is installed."""
    found = {name: _version(name) for name in PACKAGES}
    missing = [name for name, number in found.items() if number is None and name != "polos"]
    words = [f"{name} {number}" for name, number in found.items() if number is not None]
    yield ok("versions", f"Python {platform.python_version()}, {', '.join(words)}")
    if missing:
        yield wrong("versions", f"not installed: {', '.join(missing)}", "install polos again, with pip")


def check_open_files(settings: Settings) -> Iterator[Finding]:
    """Tell whether a worker started here may open as many files and connections as it needs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    concurrency = find_broker(settings).concurrency or DEFAULT_CONCURRENCY
    needed = max(MIN_OPEN_FILES, FILES_PER_SLOT * concurrency)
    if soft != resource.RLIM_INFINITY and soft < needed:
        text = f"a process may open {soft} files; {concurrency} slots may need {needed}"
        yield wrong("open files", text, f"ulimit -n {needed}, before the worker starts")
    else:
        yield ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"up to {soft} in a process")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
