"""Agents in a Flask app: no view awaits anything, and the app has no event loop of its own."""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

from agents import glossary_agent
from flask import Flask, Response, abort, jsonify, request, session

from polos import PolosClient, WorkflowTimeoutError
from polos.errors import RunFailedError, ServiceUnavailableError
from polos.events import StreamEvent

ANSWER_SECONDS = 60.0
KEEPALIVE_SECONDS = 15.0

os.environ.setdefault("POLOS_EMBEDDED_WORKER", "0")  # agents run in workers, never in this process

app = Flask(__name__)
app.secret_key = os.environ.get("APP_SECRET", "for development only")
client = PolosClient()  # connects when it is used, in each of gunicorn's processes for itself


def visitor() -> str:
    """Return who asks, by a signed cookie. An application with a login has its users here."""
    return session.setdefault("visitor", str(uuid.uuid4()))


def own_run(run_id: str) -> dict[str, Any]:
    """Return a run of this visitor; those of others do not exist."""
    try:
        run = client.sync.get_execution(run_id)
    except ValueError:
        run = {"user_id": None}
    if run["user_id"] != visitor():
        abort(404, f"There is no run {run_id!r}")
    return run


def question() -> str:
    text = (request.get_json() or {}).get("text")
    if not isinstance(text, str) or not 0 < len(text) <= 10_000:
        abort(400, "Send JSON: {'text': 'up to 10,000 characters'}")
    return text


@app.post("/ask")
def ask() -> dict[str, Any]:
    """Answer in this request: for answers that take seconds."""
    try:
        answer = glossary_agent.run_sync(client, question(), user_id=visitor(), timeout=ANSWER_SECONDS)
    except WorkflowTimeoutError:
        abort(504, "The answer takes too long")
    except RunFailedError as error:
        abort(502, str(error))
    return {"answer": answer.result, "run_id": answer.agent_run_id}


@app.post("/runs")
def start() -> tuple[dict[str, Any], int]:
    """Start a run and return at once; it goes on without this request, and without this process."""
    run = client.sync.call(glossary_agent.stream(client, question(), user_id=visitor()))
    return {"run_id": run.id}, 202


@app.get("/runs/<run_id>")
def read(run_id: str) -> dict[str, Any]:
    run = own_run(run_id)
    answer = run["result"] and run["result"]["result"]
    return {"run_id": run_id, "status": run["status"], "answer": answer, "error": run["error"]}


@app.post("/runs/<run_id>/cancel")
def cancel(run_id: str) -> tuple[dict[str, Any], int]:
    return {"cancelled": client.sync.cancel_execution(own_run(run_id)["id"])}, 202


@app.get("/runs/<run_id>/events")
def events(run_id: str) -> Response:
    """Tell the run from its start, or from where the browser was when its connection broke."""
    found = client.follow(own_run(run_id)["id"], after=request.headers.get("last-event-id"))
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return Response(
        frames(client.sync.iterate(with_pauses(found))), mimetype="text/event-stream", headers=headers
    )


def frames(events: Iterator[StreamEvent | None]) -> Iterator[str]:
    yield "retry: 1000\n\n"
    try:
        for event in events:
            yield frame(event) if event is not None else ": keepalive\n\n"
    except ValueError as error:  # the id is none of ours
        yield f"event: refused\ndata: {json.dumps({'detail': str(error)})}\n\n"


def frame(event: StreamEvent) -> str:
    return f"id: {event.id}\nevent: {event.event_type}\ndata: {json.dumps(event.data)}\n\n"


async def with_pauses(events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent | None]:
    """Yield events, and None when there was none for a while: only who writes notices that nobody reads."""
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            await asyncio.wait({coming}, timeout=KEEPALIVE_SECONDS)
            if not coming.done():
                yield None
            elif (event := coming.result()) is None:
                return
            else:
                yield event
                coming = asyncio.ensure_future(anext(events, None))
    finally:
        coming.cancel()
        await asyncio.wait({coming})
        await events.aclose()


@app.errorhandler(ServiceUnavailableError)
def try_later(error: ServiceUnavailableError) -> tuple[Response, int, dict[str, str]]:
    return jsonify(error="The service is not available; try again"), 503, {"retry-after": "5"}


@app.errorhandler(400)
@app.errorhandler(404)
@app.errorhandler(415)
@app.errorhandler(502)
@app.errorhandler(504)
def refuse(error: Any) -> tuple[Response, int]:
    return jsonify(error=error.description), error.code


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")), threaded=True)
