"""`polos server`: the HTTP API, an ASGI application that any ASGI server can run."""

from polos.server.app import create_app

__all__ = ["create_app"]
