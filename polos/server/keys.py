"""API keys over HTTP, for whoever has an admin key of their project; and the project of a key."""

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from polos.journal.keys import Key, TooManyKeysError, issue, listed, revoke
from polos.records import api_time
from polos.server.errors import ApiError, missing
from polos.server.fields import Label, ServicesDep, Word, problems
from polos.server.gate import Caller, CallerDep

router = APIRouter(tags=["projects"])


class KeyWanted(BaseModel):
    """A key to make."""

    name: Label
    project_id: Label


class KeyShown(BaseModel):
    """A key without its secret."""

    id: str
    name: str
    last_four_digits: str
    is_admin: bool
    created_at: str
    last_used_at: str | None


class IssuedKey(KeyShown):
    """A new key, with its secret: it is shown this once."""

    key: str


class Keys(BaseModel):
    """Live keys, the newest first."""

    api_keys: list[KeyShown]


class Project(BaseModel):
    """A project. Its name is its id."""

    id: str
    name: str
    description: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


class Projects(BaseModel):
    """The projects that the caller may see."""

    projects: list[Project]


@router.get("/projects", responses=problems())
async def list_projects(caller: CallerDep) -> Projects:
    """Return the project of the key."""
    return Projects(projects=[Project(id=caller.project, name=caller.project)])


@router.get("/projects/{project_id}", responses=problems(404))
async def read_project(caller: CallerDep, project_id: Label) -> Project:
    """Return the project of the key."""
    if project_id != caller.project:
        raise ApiError(404, f"This key sees no project {project_id!r}")
    return Project(id=caller.project, name=caller.project)


@router.get("/api-keys/project/{project_id}", responses=problems())
async def list_keys(caller: CallerDep, services: ServicesDep, project_id: Label) -> Keys:
    """Return the live keys of the project, for an admin of it."""
    _refuse_others(caller, project_id)
    keys = await services.journal.call(lambda journal: listed(journal, caller.project))
    return Keys(api_keys=[KeyShown.model_validate(_shown(key)) for key in keys])


@router.post("/api-keys", responses=problems(409))
async def create_key(caller: CallerDep, services: ServicesDep, body: KeyWanted) -> IssuedKey:
    """Make a key of the project, for an admin of it. The new key is none of an admin."""
    _refuse_others(caller, body.project_id)
    try:
        key, secret = await services.journal.call(lambda journal: issue(journal, caller.project, body.name))
    except TooManyKeysError as error:
        raise ApiError(409, str(error)) from error
    return IssuedKey.model_validate({**_shown(key), "key": secret})


@router.delete("/api-keys/{key_id}", status_code=204, responses=problems(404))
async def revoke_key(caller: CallerDep, services: ServicesDep, key_id: Word) -> Response:
    """End a key of the project at once and for good, for an admin of it."""
    _refuse_others(caller, caller.project)
    if not await services.journal.call(lambda journal: revoke(journal, key_id, project=caller.project)):
        raise missing(f"live API key {key_id!r}", caller.project)
    return Response(status_code=204)


def _refuse_others(caller: Caller, project: str) -> None:
    if project != caller.project or not caller.is_admin:
        raise ApiError(
            403,
            "This needs an admin key of the project; make one with "
            "'polos keys create NAME --project PROJECT --admin'",
        )


def _shown(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "last_four_digits": key.last_four_digits,
        "is_admin": key.is_admin,
        "created_at": api_time(key.created_at),
        "last_used_at": api_time(key.last_used_at),
    }
