"""Which Celery queues a worker consumes, hence which routes it serves."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import Any

from polos.registry import get_all_workflows
from polos.routes import (
    DEFAULT_ROUTE,
    Routes,
    declared_queue,
    direct_queue,
    queue_names,
    route_of,
)
from polos.settings import DEFAULT_DEPLOYMENT

logger = logging.getLogger("polos.worker")


class Consumed:
    """The routes a worker serves: those it started with, and what `celery control add_consumer` adds."""

    def __init__(self, app: Any, routes: Collection[str]) -> None:
        self._queues = app.amqp.queues
        self._routes = routes

    def __contains__(self, route: object) -> bool:
        return route in self._routes or route in {route_of(name) for name in list(self._queues.consume_from)}


def defined_routes(routing: Routes) -> set[str]:
    """Return the routes of everything defined in this process.

    Raises:
        ConfigurationError: `task_routes` names an unusable queue for one of them.
    """
    return {
        route
        for definition in get_all_workflows().values()
        for route in routing.of_definition(definition, definition.workflow_type)
    }


def consume_routes(worker: Any, deployment: str) -> set[str]:
    """Have a worker that is being built consume what it is to serve; return its routes.

    Without ``-Q`` that is the default route and those of its definitions, beside the queues of the app; with
    it, what the user names. Each route is consumed with its queue for what is under way.
    """
    queues = worker.app.amqp.queues
    known = defined_routes(Routes(worker.app)) | {DEFAULT_ROUTE}
    is_chosen = queues._consume_from is not None  # by -Q; nothing public tells
    named = {route_of(name) for name in queues.consume_from} if is_chosen else known
    if not is_chosen and deployment != DEFAULT_DEPLOYMENT and not worker.app.conf.task_queues:
        queues.deselect([DEFAULT_ROUTE])  # of workers without a deployment's name
    routes = named & known
    add_queues(worker.app, routes, deployment)
    queues.select_add(direct_queue(worker.hostname))
    if not routes:
        logger.warning("This worker serves no route of polos: -Q names none of %s", ", ".join(sorted(known)))
    return routes


def add_queues(app: Any, routes: Iterable[str], deployment: str) -> list[str]:
    """Have the app's worker consume routes; return the names of their Celery queues."""
    names = [name for route in sorted(routes) for name in queue_names(route, deployment)]
    for name in names:
        app.amqp.queues.select_add(declared_queue(app, name))
    return names
