"""A chat whose answers outlive reloads of the page, restarts of this app and deaths of workers."""

import os
import uuid
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from agents import travel_agent
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.middleware.sessions import SessionMiddleware

from polos import PolosClient
from polos.errors import ServiceUnavailableError
from polos.events import StreamEvent

STATIC = Path(__file__).with_name("static")
REMEMBERED_MESSAGES = 39  # odd, so that the oldest is a question

# What the page needs. The other events tell of steps, payloads and nested runs: nobody else's business.
SHOWN = {
    "stream_start",
    "stream_reset",
    "text_delta",
    "tool_call",
    "tool_result",
    "agent_finish",
    "agent_cancel",
}


class Message(BaseModel):
    text: str = Field(min_length=1, max_length=10_000)
    after: str | None = None  # the run whose conversation goes on


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    os.environ.setdefault("POLOS_EMBEDDED_WORKER", "0")  # agents run in workers, never in this process
    async with PolosClient() as client:
        app.state.client = client
        yield


app = FastAPI(title="Travel chat", lifespan=lifespan)
app.add_middleware(SessionMiddleware, secret_key=os.environ.get("APP_SECRET", "for development only"))


@app.exception_handler(ServiceUnavailableError)
async def try_later(request: Request, error: ServiceUnavailableError) -> JSONResponse:
    return JSONResponse({"detail": "The service is not available; try again"}, 503, {"retry-after": "5"})


def client_of(request: Request) -> PolosClient:
    return request.app.state.client


def visitor_of(request: Request) -> str:
    """Return who asks, by a signed cookie. An application with a login has its users here."""
    return request.session.setdefault("visitor", str(uuid.uuid4()))


Client = Annotated[PolosClient, Depends(client_of)]
Visitor = Annotated[str, Depends(visitor_of)]


async def find_run(client: PolosClient, run_id: str, visitor: str) -> dict[str, Any]:
    """Return a run of this visitor; those of others do not exist."""
    try:
        run = await client.get_execution(run_id)
    except ValueError:
        run = {"user_id": None}
    if run["user_id"] != visitor:
        raise HTTPException(404, f"There is no chat {run_id!r}")
    return run


async def run_of_path(run_id: str, client: Client, visitor: Visitor) -> dict[str, Any]:
    return await find_run(client, run_id, visitor)


OwnRun = Annotated[dict[str, Any], Depends(run_of_path)]


@app.post("/chat", status_code=202)
async def ask(message: Message, client: Client, visitor: Visitor) -> dict[str, str]:
    """Start a run and return at once; it goes on without this request, and without this process."""
    earlier = await find_run(client, message.after, visitor) if message.after else None
    conversation = [*(messages_of(earlier) if earlier else []), {"role": "user", "content": message.text}]
    run = await travel_agent.stream(client, conversation[-REMEMBERED_MESSAGES:], user_id=visitor)
    return {"run_id": run.id}


@app.get("/chat/{run_id}")
async def read(run: OwnRun) -> dict[str, str]:
    return {
        "run_id": run["id"],
        "text": messages_of(run, answered=False)[-1]["content"],
        "status": run["status"],
    }


@app.post("/chat/{run_id}/cancel", status_code=202)
async def cancel(run: OwnRun, client: Client) -> dict[str, bool]:
    return {"cancelled": await client.cancel_execution(run["id"])}


@app.get("/chat/{run_id}/events", response_class=EventSourceResponse)
async def events(
    run: OwnRun, client: Client, last_event_id: Annotated[str | None, Header()] = None
) -> AsyncIterable[ServerSentEvent]:
    """Tell the run from its start, or from where the browser was when its connection broke."""
    yield ServerSentEvent(retry=1000)
    try:
        async for event in client.follow(run["id"], after=last_event_id):
            if is_shown(event, run["id"]):
                yield ServerSentEvent(id=event.id, event=event.event_type, data=event.data)
    except ValueError as error:  # the id is none of ours
        yield ServerSentEvent(event="refused", data={"detail": str(error)})


def is_shown(event: StreamEvent, run_id: str) -> bool:
    return event.event_type in SHOWN and event.data["_metadata"]["execution_id"] == run_id


def messages_of(run: dict[str, Any], *, answered: bool = True) -> list[dict[str, str]]:
    """Return what was said up to this run, with its answer if it has one."""
    said: list[dict[str, str]] = list(run["payload"]["input"])
    if answered and run["status"] == "completed" and run["result"]["result"]:
        said.append({"role": "assistant", "content": run["result"]["result"]})
    return said


app.mount("/", StaticFiles(directory=STATIC, html=True))

if __name__ == "__main__":
    # Open event streams would hold a shutdown up for ever; browsers come back by themselves.
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")), timeout_graceful_shutdown=2)
