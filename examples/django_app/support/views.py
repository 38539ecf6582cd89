"""Async views: start a run, follow it, cancel it."""

import asyncio
import functools
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

from django.http import Http404, HttpRequest, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_GET, require_POST

from polos import PolosClient
from polos.events import StreamEvent
from support.agents import support_agent

KEEPALIVE_SECONDS = 15.0


@functools.cache
def polos_client() -> PolosClient:
    """Return the client of this process, made when it is first needed."""
    return PolosClient()


def visitor(request: HttpRequest) -> str:
    """Return who asks, by a signed cookie. A project with a login has `request.user` here."""
    return request.session.setdefault("visitor", str(uuid.uuid4()))


async def own_run(request: HttpRequest, run_id: str) -> dict[str, Any]:
    """Return a run of this visitor; those of others do not exist."""
    try:
        run = await polos_client().get_execution(run_id)
    except ValueError:
        run = {"user_id": None}
    if run["user_id"] != visitor(request):
        raise Http404(f"There is no run {run_id!r}")
    return run


# A page of another site can send a form here, but not JSON: hence no token is needed. Views that take forms
# need Django's CsrfViewMiddleware.
@require_POST
async def start(request: HttpRequest) -> JsonResponse:
    """Start a run and return at once; it goes on without this request, and without this process."""
    text = question(request)
    if text is None:
        return JsonResponse({"error": "Send JSON: {'text': 'up to 10,000 characters'}"}, status=400)
    run = await support_agent.stream(polos_client(), text, user_id=visitor(request))
    return JsonResponse({"run_id": run.id}, status=202)


def question(request: HttpRequest) -> str | None:
    try:
        text = json.loads(request.body)["text"] if request.content_type == "application/json" else None
    except (ValueError, LookupError, TypeError):
        return None
    return text if isinstance(text, str) and 0 < len(text) <= 10_000 else None


@require_GET
async def read(request: HttpRequest, run_id: str) -> JsonResponse:
    run = await own_run(request, run_id)
    answer = run["result"] and run["result"]["result"]
    return JsonResponse({"run_id": run_id, "status": run["status"], "answer": answer, "error": run["error"]})


@require_POST
async def cancel(request: HttpRequest, run_id: str) -> JsonResponse:
    run = await own_run(request, run_id)
    return JsonResponse({"cancelled": await polos_client().cancel_execution(run["id"])}, status=202)


@require_GET
async def events(request: HttpRequest, run_id: str) -> StreamingHttpResponse:
    """Tell the run from its start, or from where the browser was when its connection broke."""
    run = await own_run(request, run_id)
    found = polos_client().follow(run["id"], after=request.headers.get("last-event-id"))
    return StreamingHttpResponse(
        frames(found),
        content_type="text/event-stream",
        headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
    )


async def frames(events: AsyncIterator[StreamEvent]) -> AsyncIterator[str]:
    """Yield server-sent events, with a comment when there was none for a while."""
    yield "retry: 1000\n\n"
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            await asyncio.wait({coming}, timeout=KEEPALIVE_SECONDS)
            if not coming.done():
                yield ": keepalive\n\n"
            elif (event := coming.result()) is None:
                return
            else:
                yield f"id: {event.id}\nevent: {event.event_type}\ndata: {json.dumps(event.data)}\n\n"
                coming = asyncio.ensure_future(anext(events, None))
    except ValueError as error:  # the id is none of ours
        yield f"event: refused\ndata: {json.dumps({'detail': str(error)})}\n\n"
    finally:
        coming.cancel()
        await asyncio.wait({coming})
        await events.aclose()
