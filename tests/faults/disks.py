"""A small disk of a scenario's own: an ext4 in a file, which can be filled and emptied again."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BLOCK = bytes(1 << 12)
TOOLS = ("mkfs.ext4", "mount", "umount", "chattr")


class SmallDisk:
    """A mounted file system.

    Attributes:
        path: Where it is mounted; every user may look into it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"
        self._forbidden: set[Path] = set()

    def fill(self) -> None:
        """Take all the room that is left."""
        with self._filler.open("ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(BLOCK * 256)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            with suppress(OSError):
                while True:
                    filler.write(BLOCK)

    def clear(self) -> None:
        """Give it back."""
        self._filler.unlink()

    def forbid(self, *files: Path) -> None:
        """Have the file system refuse all writes to these files, by root and by who has them open, too."""
        self._forbidden.update(files)
        _run("chattr", "+i", *map(str, files))

    def allow(self) -> None:
        """Let all files be written again."""
        while self._forbidden:
            _run("chattr", "-i", str(self._forbidden.pop()))


@functools.cache
def why_no_disk() -> str:
    """Return why no disk can be had here; empty where one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a disk of its own is mounted by root, on Linux"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(missing)} not on PATH (apt-get install e2fsprogs mount)"
    try:
        with small_disk(megabytes=4):
            return ""
    except subprocess.CalledProcessError as error:
        return f"no disk can be mounted here: {error.stderr.strip()}"


@contextmanager
def small_disk(*, megabytes: int) -> Iterator[SmallDisk]:
    """Mount one while the context lasts."""
    with tempfile.TemporaryDirectory(prefix="polos-disk-") as name:
        image, place = Path(name) / "image", Path(name) / "disk"
        place.mkdir()
        os.chmod(name, 0o755)
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-m", "0", str(image))
        _run("mount", "-o", "loop", str(image), str(place))
        disk = SmallDisk(place)
        try:
            yield disk
        finally:
            disk.allow()
            _run("umount", "--lazy", str(place))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
