from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from polos.embedded.home import file_system, open_home
from polos.errors import ConfigurationError

ROOT_MOUNT = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"


def mounted(point: object, kind: str) -> str:
    return f"90 27 0:50 / {point} rw,relatime shared:9 master:2 - {kind} server:/export rw,vers=4.2\n"


def test_a_new_home_is_private(tmp_path):
    home = open_home(tmp_path / "one" / "home")

    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.locks.stat().st_mode) == 0o700


def test_a_home_is_ignored_by_git(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)

    (open_home(tmp_path / "home").path / "polos.db").touch()

    status = ["git", "-C", str(tmp_path), "status", "--porcelain"]
    assert subprocess.run(status, capture_output=True, check=True).stdout == b""


def test_what_is_there_is_left_as_it_is(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir(mode=0o750)
    (folder / ".gitignore").write_text("mine\n")

    open_home(folder)
    open_home(folder)

    assert (folder / ".gitignore").read_text() == "mine\n"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_two_names_of_a_folder_are_one_home(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "home")
    monkeypatch.chdir(tmp_path)

    assert open_home(tmp_path / "link") == open_home(Path("home"))


@pytest.mark.parametrize("name", ["home", "a b", "50%", "%2f", "who?", "a#b", "ünicode", "a@b:c"])
def test_the_database_url_leads_into_the_folder(tmp_path, name):
    home = open_home(tmp_path / name)

    engine = create_engine(home.database_url)
    with engine.begin() as connection:
        connection.execute(text("create table t (x)"))
    engine.dispose()

    assert (home.path / "polos.db").exists()


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(tmp_path, kind):
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(ROOT_MOUNT + mounted(tmp_path, kind))

    with pytest.raises(ConfigurationError, match=f"{kind}.*POLOS_HOME.*POLOS_DATABASE_URL.*POLOS_BROKER_URL"):
        open_home(tmp_path / "home", mountinfo=mountinfo)

    assert not (tmp_path / "home").exists()


def test_a_link_to_a_network_file_system_is_refused(tmp_path):
    (tmp_path / "share").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "share")
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(ROOT_MOUNT + mounted(tmp_path / "share", "nfs4"))

    with pytest.raises(ConfigurationError, match="nfs4"):
        open_home(tmp_path / "home", mountinfo=mountinfo)


def test_a_system_that_lists_no_mounts_is_trusted(tmp_path):
    assert open_home(tmp_path / "home", mountinfo=tmp_path / "none").path.is_dir()


@pytest.mark.parametrize(
    ("path", "mounts", "kind"),
    [
        ("/srv/data/home", mounted("/srv", "nfs"), "nfs"),
        ("/srv2/home", mounted("/srv", "nfs"), "ext4"),
        ("/srv/local/home", mounted("/srv", "nfs") + mounted("/srv/local", "xfs"), "xfs"),
        ("/srv/local/home", mounted("/srv/local", "xfs") + mounted("/srv", "nfs"), "xfs"),
        ("/srv/home", mounted("/srv", "nfs") + mounted("/srv", "tmpfs"), "tmpfs"),
        ("/my files/home", mounted("/my\\040files", "cifs"), "cifs"),
        ("/back\\slash/home", mounted("/back\\134slash", "cifs"), "cifs"),
        ("/home", "not a line of the kernel's\n", "ext4"),
    ],
    ids=["below", "beside", "local below", "any order", "hidden", "blank", "backslash", "unreadable"],
)
def test_the_deepest_mount_above_a_path_counts(path, mounts, kind):
    assert file_system(Path(path), ROOT_MOUNT + mounts) == kind


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "home").touch()

    with pytest.raises(ConfigurationError, match=r"home'.*POLOS_HOME"):
        open_home(tmp_path / "home")


@pytest.mark.parametrize("name", ["closed", "closed/home"])
def test_a_folder_that_cannot_be_written_is_named(closed, name):
    answer = said_by_a_child_that_is_not_root(lambda: open_home(closed.parent / name))

    assert f"{name}'" in answer
    assert "set POLOS_HOME" in answer


@pytest.fixture
def closed() -> Iterator[Path]:
    """A home, made by another, that anyone may read and only root may write."""
    base = Path(tempfile.mkdtemp())  # not tmp_path, which only its owner may enter
    base.chmod(0o755)
    home = open_home(base / "closed")
    home.path.chmod(0o555)
    home.locks.chmod(0o755)
    yield base / "closed"
    shutil.rmtree(base)


def said_by_a_child_that_is_not_root(act: Callable[[], object]) -> str:
    heard, say = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            act()
        except ConfigurationError as error:
            os.write(say, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(say)
    with open(heard, "rb") as pipe:
        return pipe.read().decode()
