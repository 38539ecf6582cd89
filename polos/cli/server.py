"""`polos server`: the HTTP API in front of the database and broker of this environment."""

from __future__ import annotations

import logging
import signal
import socket
from typing import Annotated, Any

import typer

from polos.errors import ConfigurationError
from polos.redacting import redacted
from polos.settings import Settings

GRACE_SECONDS = 10  # for requests that are under way when the server is told to end


def run_server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0: any.")] = 8080,
    loglevel: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C. Workers are started apart, with 'polos worker'."""
    settings = Settings.from_environment()
    _check_local_mode(settings, host)
    _check_services(settings)
    raise typer.Exit(_serve(settings, host=host, port=port, loglevel=loglevel.lower()))


def _check_local_mode(settings: Settings, host: str) -> None:
    """Refuse to serve strangers without a key.

    Raises:
        ConfigurationError: The address can be reached from elsewhere, and nobody is asked for a key.
    """
    from polos.server.local import is_loopback

    if settings.local_mode == "true" and not is_loopback(host):
        raise ConfigurationError(
            f"--host {host!r} can be reached from other machines, and POLOS_LOCAL_MODE asks nobody for a "
            "key: listen on 127.0.0.1, or unset POLOS_LOCAL_MODE and make keys with 'polos keys create'"
        )


def _check_services(settings: Settings) -> None:
    """Create the schema if there is none, and say so if nobody has a key.

    Raises:
        ConfigurationError: A setting is wrong, or the schema is not the one of this version.
        ServiceUnavailableError: The database does not answer.
    """
    from polos.cli.journal import find_database
    from polos.journal import keys, schema
    from polos.journal.key_check import check_key

    database = find_database(settings)
    schema.prepare(database)
    check_key(database)
    journal = database.connect()
    try:
        if settings.local_mode != "true" and not keys.listed(journal, None):
            typer.echo("No API keys yet. Make one with: polos keys create NAME --project PROJECT", err=True)
    finally:
        journal.close()


def _serve(settings: Settings, *, host: str, port: int, loglevel: str) -> int:
    """Serve until told to end; return the exit code."""
    import uvicorn

    from polos.server.app import create_app

    class Server(uvicorn.Server):
        """A server whose streams end when it does: it would wait for them."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            """End the streams, then the rest."""
            app.state.services.closing.set()
            await super().shutdown(sockets)

    app = create_app(settings)
    config: Any = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=loglevel,
        access_log=loglevel == "debug",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    logging.getLogger("uvicorn.access").addFilter(_without_tokens)
    server = Server(config)
    signal.signal(signal.SIGTERM, _leave)  # uvicorn raises it again when it has ended
    server.run()
    return 0 if server.started else 1


def _without_tokens(record: logging.LogRecord) -> bool:
    """Take what opens a question out of the addresses that are logged."""
    args = record.args if isinstance(record.args, tuple) else ()
    record.args = tuple(redacted(each) if isinstance(each, str) else each for each in args) or record.args
    return True


def _leave(*_: object) -> None:
    raise SystemExit(0)
