"""`polos encryption`: keys of stored values: make one, see what is encrypted with which, encrypt again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.table import Table

from polos.cli.cells import list_console
from polos.cli.journal import reading
from polos.encryption import NO_KEY, SETTING, Cipher, codec_of, new_key
from polos.errors import ConfigurationError
from polos.settings import Settings

app = typer.Typer(help="Encryption of stored values, and its keys.", no_args_is_help=True)


@app.command("new-key")
def make_key(
    name: Annotated[str, typer.Argument(help="Its id, such as k1: letters, digits, _ and -.")],
) -> None:
    """Print a new random key, as POLOS_ENCRYPTION_KEYS has it. It is kept nowhere."""
    typer.echo(new_key(name))
    typer.echo(
        f"Keep it as you keep passwords, and set {SETTING}: what it encrypts is lost with it.", err=True
    )


@app.command("status")
def show_status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count the stored values by the key they are encrypted with. Reads every row."""
    from polos.journal.rotation import counts

    with _with_keys() as (journal, cipher):
        found = counts(journal, cipher)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        list_console().print(_table(found, cipher))


@app.command("rotate")
def rotate_keys(
    batch_rows: Annotated[
        int, typer.Option("--batch", min=1, max=1000, help="Rows that are written in one transaction.")
    ] = 20,
) -> None:
    """Encrypt with the first key what is stored otherwise. Workers may go on; may be broken off and repeated.

    With 'none' for the first key, values are decrypted.
    """
    from polos.journal.rotation import rotate

    changed: dict[str, int] = {}
    with _with_keys() as (journal, cipher):
        for progress in rotate(journal, cipher, batch_rows=batch_rows):
            changed[progress.table] = changed.get(progress.table, 0) + progress.changed
    key = "are not encrypted any more" if cipher.first is None else f"are encrypted with {cipher.first!r} now"
    for table, count in changed.items():
        typer.echo(f"{table}: {count} values {key}")
    typer.echo("Nothing is left to do." if not changed else "Done; 'polos encryption status' counts.")


@contextmanager
def _with_keys() -> Iterator[tuple[Any, Cipher]]:
    codec = codec_of(Settings.from_environment().encryption_keys)
    if not isinstance(codec, Cipher):
        raise ConfigurationError(
            f"{SETTING} is not set: give the keys that the workers have, the new one first; "
            "'polos encryption new-key' makes one"
        )
    with reading() as journal:
        yield journal, codec


def _table(found: dict[str, dict[str, int]], cipher: Cipher) -> Table:
    names = {**{key: key for key in cipher.key_ids}, "": NO_KEY, "?": "another key"}
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("table")
    for name in names.values():
        table.add_column(name, justify="right")
    for name, counted in found.items():
        table.add_row(name, *(str(counted.get(key, 0)) for key in names))
    return table
