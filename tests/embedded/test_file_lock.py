from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from polos.embedded.locks import FileLock

ROOT = Path(__file__).parents[2]


def test_many_may_share(tmp_path):
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")

    assert one.try_shared()
    assert other.try_shared()


def test_one_excludes_the_others(tmp_path):
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")

    assert one.try_exclusive()
    assert not other.try_shared()
    assert not other.try_exclusive()
    assert one.held
    assert not other.held


def test_release_lets_the_next_in(tmp_path):
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    one.try_exclusive()

    one.release()
    one.release()

    assert not one.held
    assert other.try_exclusive()


def test_a_lock_on_a_removed_file_is_not_held(tmp_path):
    lock = FileLock(tmp_path / "lock")
    lock.try_exclusive()

    lock.path.unlink()

    assert not lock.held
    assert lock.try_exclusive()
    assert lock.held


def test_a_lock_that_is_not_held_has_no_descriptor(tmp_path):
    with pytest.raises(ValueError, match="not held"):
        FileLock(tmp_path / "lock").fileno()


def test_a_killed_process_holds_nothing(tmp_path):
    program = (
        "import sys; from pathlib import Path; from polos.embedded.locks import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])); print(lock.try_exclusive(), flush=True); sys.stdin.read()"
    )
    lock = FileLock(tmp_path / "lock")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lock.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"True\n"
        assert not lock.try_exclusive()

        process.kill()
        process.wait()

        assert lock.try_exclusive()


def test_a_forked_child_holds_nothing_and_costs_its_parent_nothing(tmp_path):
    lock, probe = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    lock.try_exclusive()
    said, say = os.pipe()
    child = os.fork()
    if not child:
        os.write(say, b"held" if lock.held else b"free")
        signal.pause()
    try:
        assert os.read(said, 4) == b"free"
        assert not probe.try_shared()  # the parent still has it

        lock.release()

        assert probe.try_exclusive()  # though the child lives
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(said)
        os.close(say)
        probe.release()
