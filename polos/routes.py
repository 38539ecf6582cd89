"""Routes: which fleet of workers serves a run or a turn, and the Celery queues of that fleet.

A route is a word such as ``polos`` or ``gpu``. Its Celery queues are ``gpu`` for new runs and ``gpu.next``
for what is under way; a named deployment has its own, ``gpu@v2`` and ``gpu@v2.next``, so that versions of the
code live side by side.
"""

from __future__ import annotations

from typing import Any, Protocol

from kombu import Queue

from polos.queues import NEXT, check_route
from polos.settings import DEFAULT_DEPLOYMENT

DEFAULT_ROUTE = "polos"
RUN_TASK = "polos.run"
TURN_TASK = "polos.turn"
TURN_SUFFIX = ".turn"
DIRECT_QUEUE_SECONDS = 3600.0  # RabbitMQ forgets the queue of a worker that is gone


class Routed(Protocol):
    """A definition, as far as its route goes."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def route(self) -> str | None:
        """The route written on it."""


def turn_label(agent_id: str) -> str:
    """Return what Flower shows for a turn of the agent, which is what `task_routes` may match."""
    return agent_id + TURN_SUFFIX


def queue_name(route: str, deployment: str = DEFAULT_DEPLOYMENT, *, begun: bool = False) -> str:
    """Return the Celery queue of a route: of its new runs, or of what has `begun`."""
    pinned = "" if deployment == DEFAULT_DEPLOYMENT else f"@{deployment}"
    return f"{route}{pinned}{NEXT if begun else ''}"


def queue_names(route: str, deployment: str = DEFAULT_DEPLOYMENT) -> list[str]:
    """Return both Celery queues of a route."""
    return [queue_name(route, deployment, begun=begun) for begun in (False, True)]


def route_of(name: str) -> str:
    """Return the route that a Celery queue belongs to."""
    return name.removesuffix(NEXT).partition("@")[0]


def direct_queue(hostname: str) -> Queue:
    """Return the Celery queue of one worker, by its node name."""
    name = f"{DEFAULT_ROUTE}.worker.{hostname}"
    return Queue(name, routing_key=name, exchange="", expires=DIRECT_QUEUE_SECONDS)


def declared_queue(app: Any, name: str) -> Queue:
    """Return the app's queue of a name, made as the app makes its own when it has none such."""
    queues = app.amqp.queues
    return queues[name] if name in queues else queues.add(queues.new_missing(name))


class Routes:
    """Where runs and turns go, by their definitions and by the `task_routes` of a Celery app.

    As with Celery's tasks, what is written on the definition comes first. `task_routes` matches readable
    names (``get_weather``, ``weather-agent``, ``weather-agent.turn``), then the names of the two tasks.

    Args:
        app: None where there is no Celery: only what is written on definitions counts.
    """

    def __init__(self, app: Any | None) -> None:
        self._app = app

    def of_run(self, name: str, declared: str | None = None) -> str:
        """Return the route of runs of a definition.

        Raises:
            ConfigurationError: `task_routes` names no usable queue for it.
        """
        return declared or self._configured(name, RUN_TASK) or DEFAULT_ROUTE

    def of_turn(self, agent_id: str, route: str) -> str:
        """Return the route of an agent's turns, whose runs go to `route`."""
        return self._configured(turn_label(agent_id), TURN_TASK) or route

    def of_definition(self, definition: Routed, kind: str) -> set[str]:
        """Return the routes a worker consumes to serve a definition whole."""
        route = self.of_run(definition.id, definition.route)
        return {route, self.of_turn(definition.id, route)} if kind == "agent" else {route}

    def _configured(self, *names: str) -> str | None:
        if self._app is None:
            return None
        for name in names:
            found = self._app.amqp.router.lookup_route(name, (), {}, {})
            route = found.get("queue") if isinstance(found, dict) else found
            if route is None:  # or it says something else, such as a priority
                continue
            return check_route(getattr(route, "name", route), f"task_routes, for {name!r},")
        return None
