"""What this process talks to: configured servers, or the embedded ones of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery

from polos.dispatch import broker_settings
from polos.embedded.home import open_home
from polos.embedded.valkey import EmbeddedValkey
from polos.errors import ConfigurationError
from polos.journal.database import Database
from polos.settings import Settings

_REDIS_SCHEMES = ("redis://", "rediss://", "redis+socket://", "unix://", "valkey://", "valkeys://")


class Connections:
    """The database, broker and Redis of one process. Close it to let embedded services end."""

    def __init__(self, settings: Settings, *, broker_url: str = "") -> None:
        """Resolve the URLs; starts or joins the embedded services when something is not configured.

        Args:
            settings: Whose URLs come first.
            broker_url: The broker of celeryconfig.py; POLOS_BROKER_URL comes before it.
        """
        self.settings = settings
        self.valkey: EmbeddedValkey | None = None
        self.broker_url = settings.broker_url or broker_url
        self.redis_url = settings.redis_url
        database_url = settings.database_url
        if not (self.broker_url and database_url):
            home = open_home(settings.home)
            database_url = database_url or home.database_url
            if not self.broker_url:
                self._embed(EmbeddedValkey(home.path))
        if not self.redis_url:
            self.redis_url = _redis_of(self.broker_url)
        self.database = Database(database_url, sqlite_sync=settings.sqlite_sync)

    def _embed(self, valkey: EmbeddedValkey) -> None:
        valkey.acquire()
        self.valkey = valkey
        self.broker_url = valkey.broker_url
        self.redis_url = self.redis_url or valkey.redis_url

    def revive(self) -> None:
        """Start the embedded server again if it died."""
        if self.valkey is not None:
            self.valkey.refresh()

    def close(self) -> None:
        """Stop using the embedded server."""
        if self.valkey is not None:
            self.valkey.release()


def configured_app(settings: Settings, defaults: Mapping[str, Any]) -> tuple[Celery, Connections]:
    """Return the Celery app of this folder and the connections it uses.

    What its celeryconfig.py sets comes before `defaults`; POLOS_BROKER_URL comes before both.
    """
    app = Celery("polos", set_as_current=False)
    app.config_from_object("celeryconfig", silent=True)
    broker_url = app.conf.broker_url or ""
    chosen = set(app.loader.conf or ())
    app.conf.update({name: value for name, value in defaults.items() if name not in chosen})
    connections = Connections(settings, broker_url=broker_url)
    app.conf.update(broker_settings(connections.broker_url, app.conf.broker_transport_options))
    return app, connections


def _redis_of(broker_url: str) -> str:
    if not broker_url.startswith(_REDIS_SCHEMES):
        raise ConfigurationError(
            "The broker is not Redis, so POLOS_REDIS_URL must name a Redis or Valkey server for live "
            "notices, such as 'redis://localhost:6379/0'"
        )
    if broker_url.startswith("redis+socket://"):
        return broker_url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=")
    return broker_url.replace("valkeys://", "rediss://", 1).replace("valkey://", "redis://", 1)
