"""Keys of the HTTP API: issue, recognise, list, revoke. A key's secret is seen once, when it is issued."""

from __future__ import annotations

import hashlib
import secrets
import string
import uuid
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import bindparam, case, func, insert, literal, or_, select, update

from polos.errors import ConfigurationError
from polos.journal.database import Connection
from polos.journal.statements import Part, Statement, Unit, now
from polos.journal.tables import ApiKey

PREFIX = "sk_"
SECRET_CHARACTERS = 32  # of 62 kinds: 190 bits, which no one guesses, so a plain digest is enough
MAX_LIVE_KEYS = 10  # per project
USED_AGAIN_SECONDS = 60.0  # last_used_at is no more exact than that
_ALPHABET = string.ascii_letters + string.digits

KEYS = ApiKey.__table__  # type: ignore[attr-defined]
K = KEYS.c
P = bindparam


@dataclass(frozen=True)
class Key:
    """A key as it may be shown: everything but its secret. Times are seconds since the epoch."""

    id: str
    project: str
    name: str
    last_four_digits: str
    is_admin: bool
    created_at: float
    last_used_at: float | None
    revoked_at: float | None


class TooManyKeysError(ConfigurationError):
    """The project has as many live keys as it may have."""


_SHOWN = (
    K.id,
    K.project,
    K.name,
    K.last_four_digits,
    K.is_admin,
    K.created_at,
    K.last_used_at,
    K.revoked_at,
)
_ISSUE = Statement(
    insert(KEYS)
    .values(
        id=P("id"),
        project=P("project"),
        name=P("name"),
        digest=P("digest"),
        last_four_digits=P("last_four_digits"),
        is_admin=P("is_admin"),
        created_at=now(),
    )
    .returning(*_SHOWN)
)
_unused_lately = or_(K.last_used_at.is_(None), K.last_used_at < now() - literal(USED_AGAIN_SECONDS))
_FIND = Statement(
    select(*_SHOWN, case((_unused_lately, 1), else_=0)).where(K.digest == P("digest"), K.revoked_at.is_(None))
)
_IS_LIVE = Statement(select(K.id).where(K.id == P("id"), K.revoked_at.is_(None)))
_LIST = Statement(
    select(*_SHOWN)
    .where(K.project == P("project"), K.revoked_at.is_(None))
    .order_by(K.created_at.desc(), K.id)
)
_LIST_ALL = Statement(select(*_SHOWN).where(K.revoked_at.is_(None)).order_by(K.project, K.created_at.desc()))
_COUNT = Statement(select(func.count(), literal(0)).where(K.project == P("project"), K.revoked_at.is_(None)))
_REVOKE = Statement(
    update(KEYS)
    .where(K.id == P("id"), K.project == P("project"), K.revoked_at.is_(None))
    .values(revoked_at=now())
    .returning(K.id)
)
_USED = Statement(
    update(KEYS).where(K.id == P("id"), _unused_lately).values(last_used_at=now()).returning(K.id)
)


def issue(journal: Connection, project: str, name: str, *, is_admin: bool = False) -> tuple[Key, str]:
    """Make a key of a project; return it with its secret, which cannot be had again.

    Raises:
        TooManyKeysError: The project has `MAX_LIVE_KEYS` live ones.
    """
    [[count, _]] = journal.read(_COUNT, {"project": project})
    if count >= MAX_LIVE_KEYS:
        raise TooManyKeysError(
            f"Project {project!r} has {MAX_LIVE_KEYS} keys, and no more are allowed: revoke one first"
        )
    secret = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(SECRET_CHARACTERS))
    params = {
        "id": str(uuid.uuid4()),
        "project": project,
        "name": name,
        "digest": _digest(secret),
        "last_four_digits": secret[-4:],
        "is_admin": int(is_admin),
    }
    [[row]] = journal.commit([_unit(_ISSUE, params)])
    return _key(row), secret


def recognise(journal: Connection, secret: str) -> Key | None:
    """Return the live key with this secret, and note that it was used; None when there is none."""
    rows = journal.read(_FIND, {"digest": _digest(secret)})
    if not rows:
        return None
    *shown, unused_lately = rows[0]
    key = _key(tuple(shown))
    if unused_lately:
        journal.commit([_unit(_USED, {"id": key.id})])
    return key


def is_live(journal: Connection, key_id: str) -> bool:
    """Whether a key has not been revoked."""
    return bool(journal.read(_IS_LIVE, {"id": key_id}))


def listed(journal: Connection, project: str | None) -> list[Key]:
    """Return the live keys of a project, the newest first; of all projects for None."""
    rows = journal.read(_LIST_ALL, {}) if project is None else journal.read(_LIST, {"project": project})
    return [_key(row) for row in rows]


def revoke(journal: Connection, key_id: str, *, project: str) -> bool:
    """End a key for good; False when the project has no live key of this id."""
    [rows] = journal.commit([_unit(_REVOKE, {"id": key_id, "project": project})])
    return bool(rows)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _unit(statement: Statement, params: dict[str, Any]) -> Unit:
    return Unit((Part(statement, params),), ())


def _key(row: tuple[Any, ...]) -> Key:
    values = dict(zip((spec.name for spec in fields(Key)), row, strict=True))
    return Key(**{**values, "is_admin": bool(values["is_admin"])})
