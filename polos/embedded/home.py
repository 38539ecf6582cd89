"""The folder that holds the database, locks and server of programs run without configuration."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from polos.errors import ConfigurationError

MOUNTINFO = Path("/proc/self/mountinfo")  # Linux only; elsewhere every file system is accepted
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs"})


@dataclass(frozen=True)
class Home:
    """A private folder on a local disk, shared by all processes that name it.

    Attributes:
        path: Absolute, with symbolic links resolved, so that two names of one folder are one home.
    """

    path: Path

    @property
    def database_url(self) -> str:
        """URL of the SQLite database in this folder."""
        # A URL ends its path at "?", and "%" starts an escape there.
        folder = str(self.path).replace("%", "%25").replace("?", "%3F")
        return f"sqlite:///{folder}/polos.db"

    @property
    def locks(self) -> Path:
        """Folder of the files by whose locks a worker is known to live."""
        return self.path / "locks"


def open_home(path: Path, *, mountinfo: Path = MOUNTINFO) -> Home:
    """The home at a path, created with access for its owner only if it is not there yet.

    An existing folder keeps its mode and its `.gitignore`. Opening twice is harmless.

    Args:
        path: The folder; relative to the working directory unless absolute.
        mountinfo: Where the kernel lists what is mounted.

    Raises:
        ConfigurationError: The folder is on a network file system, whose locks cannot be
            trusted, or it cannot be created or written.
    """
    home = Home(path.expanduser().resolve())
    _refuse_network(home.path, mountinfo)
    try:
        _create(home)
    except OSError as error:
        raise ConfigurationError(
            f"cannot use the folder {str(home.path)!r}: {error.strerror}; "
            "set POLOS_HOME to a local folder this user may write"
        ) from error
    return home


def _create(home: Home) -> None:
    home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.locks.mkdir(mode=0o700, exist_ok=True)
    if not os.access(home.path, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(0, "it is not writable")
    try:
        with (home.path / ".gitignore").open("x") as ignore:
            ignore.write("*\n")
    except FileExistsError:
        pass  # ours from before, or the user's own: either way theirs to edit


def _refuse_network(path: Path, mountinfo: Path) -> None:
    try:
        mounts = mountinfo.read_text(errors="surrogateescape")
    except OSError:
        return  # not Linux, or no /proc: nothing to judge by
    kind = file_system(path, mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise ConfigurationError(
            f"the folder {str(path)!r} is on a network file system ({kind}), whose locks cannot be trusted; "
            "set POLOS_HOME to a local folder, or POLOS_DATABASE_URL and POLOS_BROKER_URL to servers"
        )


def file_system(path: Path, mounts: str) -> str | None:
    """Type of the file system a path is on, such as `ext4`, or None if the list does not say.

    Args:
        path: An absolute path without symbolic links; it need not exist.
        mounts: Text in the format of `/proc/self/mountinfo`.
    """
    deepest, kind = -1, None
    for line in mounts.splitlines():
        mount, _, source = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) < 5 or not source:
            continue
        point = Path(_unescape(fields[4]))
        # The last of several mounts on one point hides the others.
        if path.is_relative_to(point) and len(point.parts) >= deepest:
            deepest, kind = len(point.parts), source.split(" ")[0]
    return kind


def _unescape(field: str) -> str:
    """Undo the octal escapes the kernel writes for blanks, line ends and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda escape: chr(int(escape[1], 8)), field)
