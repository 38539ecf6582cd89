"""Stored values are encrypted, with keys that change; without one nobody reads them or goes on by mistake."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.asyncio
from cli.written import Written, without_settings
from sealed import raw_rows, unsealed
from typer.testing import CliRunner

from polos.cli.main import app
from polos.encryption import PLAIN, PREFIX, Cipher, Codec, codec_of, key_id, new_key
from polos.errors import EncryptionError
from polos.journal.database import Database
from polos.journal.ends import Ending, finish_run
from polos.journal.exports import export
from polos.journal.key_check import check_key
from polos.journal.rotation import counts, rotate
from polos.journal.runs import READ_RUN, Claim, run_record
from polos.journal.states import RunStatus
from polos.streaming.bus import Append, Bus

# Always the same, for they are in the ids of tests, which have to be those of every process.
K1, K2 = f"k1:{base64.b64encode(b'1' * 32).decode()}", f"k2:{base64.b64encode(b'2' * 32).decode()}"
SECRET = '{"input":"the customer is ill"}'


# -- the codec


@pytest.mark.parametrize("text", ["", "{}", SECRET, "é\u2028\x01", "x" * 1_000_000, f"{PREFIX}k1:AAAA"])
def test_what_is_sealed_is_opened_again(text: str) -> None:
    codec = codec_of(K1)
    sealed = codec.seal(text)
    assert sealed.startswith(f"{PREFIX}k1:")
    assert sealed.isascii()
    assert not text or text not in sealed
    assert codec.open(sealed) == text
    assert codec.seal(text) != sealed


def test_the_first_key_seals_and_all_open() -> None:
    old, both = codec_of(K1), codec_of(f"{K2}, {K1}")
    assert both.open(old.seal("x")) == "x"
    assert key_id(both.seal("x")) == "k2"
    assert both.open("not encrypted") == "not encrypted"


def test_with_none_for_the_first_key_nothing_more_is_sealed() -> None:
    codec = codec_of(f"none,{K1}")
    assert codec.seal("x") == "x"
    assert codec.open(codec_of(K1).seal("x")) == "x"
    assert codec_of("none") is PLAIN


@pytest.mark.parametrize("codec", [PLAIN, codec_of(f"none,{K1}")])
def test_a_text_that_looks_sealed_is_none(codec: Codec) -> None:
    """What a model or a customer says is never taken for something to decrypt."""
    assert codec.open(codec.seal(f"{PREFIX}k1:AAAA")).strip() == f"{PREFIX}k1:AAAA"


def test_an_unknown_key_is_named() -> None:
    sealed = codec_of(K1).seal("x")
    with pytest.raises(EncryptionError, match=r"with key 'k1'.*it has 'k2'.*add it"):
        codec_of(K2).open(sealed)
    with pytest.raises(EncryptionError, match=r"with key 'k1'.*set POLOS_ENCRYPTION_KEYS"):
        PLAIN.open(sealed)


def test_another_key_of_the_same_name_is_told() -> None:
    with pytest.raises(EncryptionError, match=r"'k1' .* is another one"):
        codec_of(new_key("k1")).open(codec_of(K1).seal("x"))


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_changed_value_is_told(place: int) -> None:
    head, body = f"{PREFIX}k1:", bytearray(base64.b64decode(codec_of(K1).seal("x" * 50).rpartition(":")[2]))
    body[place] ^= 1
    with pytest.raises(EncryptionError, match="cannot be decrypted"):
        codec_of(K1).open(head + base64.b64encode(body).decode())


@pytest.mark.parametrize("rest", ["", "AAAA", "no base64!", "é"])
def test_a_value_that_is_none_is_told(rest: str) -> None:
    with pytest.raises(EncryptionError, match="cannot be decrypted"):
        codec_of(K1).open(f"{PREFIX}k1:{rest}")


SHORT = base64.b64encode(b"s" * 16).decode()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("k1", "key 1 .* not of the form"),
        (f"k 1:{SHORT}", "key 1 .* not of the form"),
        (f"k1:{SHORT}", "key 1 .*'k1', is not the base64 of 32 bytes"),
        ("k1:no base64!", "is not the base64"),
        ("k1:é", "is not the base64"),
        (f"{K1},k2:{SHORT}", "key 2 .*'k2'"),
        (f"{K1},{K1}", "two keys 'k1'"),
        (f"{K1},none", "key 2 .* not of the form"),
    ],
)
def test_a_key_that_is_none_is_told_but_not_shown(setting: str, says: str) -> None:
    with pytest.raises(EncryptionError, match=says) as refused:
        codec_of(setting)
    assert SHORT not in str(refused.value)
    assert K1.partition(":")[2] not in str(refused.value)


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(EncryptionError, match=r"pip install 'polos\[encryption\]'"):
        codec_of(K1)


# -- the journal


@pytest.fixture
def written(database: Database) -> Iterator[Written]:
    journal = Written(_with(database, K1))
    yield journal
    journal.close()


def _with(database: Database, setting: str) -> Database:
    return Database(database.url.render_as_string(hide_password=False), codec=codec_of(setting))


def _fill(written: Written, count: int = 3) -> list[str]:
    ids = []
    for _ in range(count):
        run = written.claimed(written.run(input=SECRET, initial_state=SECRET))
        assert run.input == SECRET
        written.turn(run)
        _end(written, run, output=SECRET, error=SECRET, final_state=SECRET)
        ids.append(run.id)
    return ids


def _end(written: Written, run: Claim, **values: str) -> None:
    assert written.do(finish_run(run.id, run.attempt, Ending(RunStatus.COMPLETED, **values), root_id=run.id))


def _read(database: Database, run_id: str) -> dict[str, object]:
    connection = database.connect()
    try:
        [row] = connection.read(READ_RUN, {"run": run_id})
        return run_record(row)
    finally:
        connection.close()


def test_values_are_stored_encrypted_and_read_as_they_were(database: Database, written: Written) -> None:
    [run_id] = _fill(written, 1)
    assert not any("ill" in value for _, _, value in raw_rows(database))
    assert unsealed(database) == []
    run = _read(_with(database, K1), run_id)
    assert run["input"] == run["output"] == run["final_state"] == SECRET


def test_without_the_key_nothing_starts(database: Database, written: Written) -> None:
    check_key(database)  # nothing is stored yet
    _fill(written, 1)
    for setting in ("", K2):
        with pytest.raises(EncryptionError, match="with key 'k1'"):
            check_key(_with(database, setting))
    check_key(_with(database, f"{K2},{K1}"))


def test_what_was_stored_before_there_were_keys_is_read(database: Database) -> None:
    plain = Written(database)
    run_id = plain.run(input=SECRET)
    plain.close()
    assert _read(_with(database, K1), run_id)["input"] == SECRET


def test_keys_are_changed_in_steps_and_nothing_is_lost(database: Database, written: Written) -> None:
    ids = _fill(written)
    for setting, key in ((f"{K2},{K1}", "k2"), (f"none,{K2}", ""), (K1, "k1")):
        changing = _with(database, setting)
        cipher = changing.codec
        assert isinstance(cipher, Cipher)
        connection = changing.connect()
        progress = list(rotate(connection, cipher, batch_rows=2))
        assert sum(each.changed for each in progress) > 0
        for counted in counts(connection, cipher).values():
            assert {name for name, count in counted.items() if count} <= {key}
        assert list(rotate(connection, cipher)) == []
        connection.close()
        for run_id in ids:
            run = _read(_with(database, K1 if key == "k1" else K2), run_id)
            assert run["input"] == run["output"] == SECRET


def test_a_rotation_that_was_broken_off_goes_on(database: Database, written: Written) -> None:
    _fill(written, 5)
    changing = _with(database, f"{K2},{K1}")
    cipher = changing.codec
    assert isinstance(cipher, Cipher)
    connection = changing.connect()
    first = next(iter(rotate(connection, cipher, batch_rows=1)))
    rest = list(rotate(connection, cipher, batch_rows=1))
    assert first.changed > 0
    assert sum(each.looked_at for each in rest if each.table == first.table) == 4
    connection.close()


def test_what_is_changed_meanwhile_is_left_as_it_is(database: Database, written: Written) -> None:
    """The rotation has read an old value; the run ends before it writes."""
    run = written.claimed(written.run(input=SECRET, initial_state=SECRET))
    changing = _with(database, f"{K2},{K1}")
    cipher = changing.codec
    assert isinstance(cipher, Cipher)
    connection = changing.connect()
    sealing = cipher.seal

    def seal_late(text: str) -> str:
        cipher.seal = sealing  # type: ignore[method-assign]
        _end(written, run, output='"done"')
        return sealing(text)

    cipher.seal = seal_late  # type: ignore[method-assign]
    list(rotate(connection, cipher))
    connection.close()
    found = _read(changing, run.id)
    assert (found["output"], found["input"], found["status"]) == ('"done"', SECRET, "completed")


def test_one_value_that_cannot_be_opened_fails_alone(database: Database, written: Written) -> None:
    """All of a batch is committed: the others' answers are theirs, and nothing is repeated."""
    other = Written(_with(database, K2))
    bad, good = written.run(input=SECRET), other.run(input=SECRET)
    with pytest.raises(EncryptionError, match="'k1'"):
        other.claimed(bad)
    assert other.claimed(good).input == SECRET
    assert _read(_with(database, K1), bad)["attempt"] == 1
    other.close()


def test_an_export_can_be_read_without_the_key(database: Database, written: Written) -> None:
    """So that its runs can be replayed elsewhere."""
    [run_id] = _fill(written, 1)
    found = export(_with(database, K1), roots=[run_id], polos="x")
    assert found.rows["run"][0]["input"] == SECRET
    with pytest.raises(EncryptionError, match="'k1'"):
        export(database, roots=[run_id], polos="x")


# -- Redis, which has text in the streams of runs


async def test_entries_of_streams_are_encrypted_on_redis(valkey_url: str) -> None:
    raw = redis.asyncio.Redis.from_url(f"{valkey_url}/15", decode_responses=True)
    bus = Bus(f"{valkey_url}/15", prefix="sealed:", codec=codec_of(K1))
    blind = Bus(f"{valkey_url}/15", prefix="sealed:")
    heard: asyncio.Queue[str] = asyncio.Queue()
    overheard: list[str] = []
    subscribed = asyncio.Event()
    try:
        async with (
            raw.pubsub() as tap,
            bus.listening("tree:x", heard.put_nowait, on_subscribed=subscribed.set),
        ):
            await tap.subscribe("sealed:tree:x")
            await subscribed.wait()
            bus.append(Append("tree:x", SECRET, True, 100, 60.0, lambda kept: None))
            entry_id, text = (await asyncio.wait_for(heard.get(), 20)).split("\n")
            assert text == SECRET
            while not overheard:
                message = await tap.get_message(ignore_subscribe_messages=True, timeout=1)
                overheard += [message["data"]] if message else []
        kept = await raw.xrange("sealed:tree:x")
        assert kept
        assert not any("ill" in each for each in (str(kept), *overheard))
        assert await bus.read_stream("tree:x") == [(entry_id, SECRET)]
        with pytest.raises(EncryptionError, match="'k1'"):
            await blind.read_stream("tree:x")
    finally:
        await bus.close()
        await blind.close()
        await raw.aclose()


# -- the command


@pytest.fixture
def command(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    without_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLOS_DATABASE_URL", database.url.render_as_string(hide_password=False))
    return monkeypatch


def polos(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["encryption", *arguments])
    return f"{result.exit_code} {result.output}"


def test_the_command_makes_keys_that_can_be_used(command: pytest.MonkeyPatch) -> None:
    made = CliRunner().invoke(app, ["encryption", "new-key", "k9"]).stdout.splitlines()[0]
    assert codec_of(made).open(codec_of(made).seal("x")) == "x"
    assert "cannot be the id" in polos("new-key", "k 9")
    assert "cannot be the id" in polos("new-key", "none")


def test_the_command_rotates(command: pytest.MonkeyPatch, written: Written) -> None:
    _fill(written, 1)
    assert "POLOS_ENCRYPTION_KEYS is not set" in polos("rotate")
    command.setenv("POLOS_ENCRYPTION_KEYS", K2)
    assert "with key 'k1'" in polos("rotate")
    assert "?" in polos("status", "--json")
    command.setenv("POLOS_ENCRYPTION_KEYS", f"{K2},{K1}")
    assert "run: 5 values are encrypted with 'k2' now" in polos("rotate")
    assert "Nothing is left to do" in polos("rotate")
    assert '"k2": 5' in polos("status", "--json")


def test_who_reads_without_a_key_is_told_so(command: pytest.MonkeyPatch, written: Written) -> None:
    [run_id] = _fill(written, 1)
    result = CliRunner().invoke(app, ["runs", "show", run_id])
    assert result.exit_code == 2
    assert "with key 'k1'" in result.output
    assert "POLOS_ENCRYPTION_KEYS" in result.output
