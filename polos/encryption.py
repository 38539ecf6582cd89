"""Stored values are encrypted: sealed on their way to database and Redis, and opened on the way back.

A sealed text is ``polos-enc:KEY:BASE64``: the id of its key, and in the base64 a salt, a nonce and what
AES-256-GCM made of the text. The salt derives a key for this one text, so that no number of texts wears a key
out.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from polos.errors import EncryptionError

SETTING = "POLOS_ENCRYPTION_KEYS"
PREFIX = "polos-enc:"
NO_KEY = "none"  # in place of the first key: what is new is not encrypted
KEY_BYTES = 32
SALT_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Codec(Protocol):
    """How texts are stored."""

    def seal(self, text: str) -> str:
        """Return `text` as it is stored."""

    def open(self, stored: str) -> str:
        """Return the text that is stored so, sealed or not.

        Raises:
            EncryptionError: Its key is not here, or it was changed.
        """


class Plain:
    """Stores texts as they are."""

    def seal(self, text: str) -> str:
        """Return `text`; one that looks sealed gets a space before it, which JSON does not mind."""
        return " " + text if text.startswith(PREFIX) else text

    def open(self, stored: str) -> str:
        """Return a text that is not sealed."""
        if not stored.startswith(PREFIX):
            return stored
        raise EncryptionError(
            f"A stored value is encrypted with key {key_id(stored)!r}, and this process has no keys: set "
            f"{SETTING} as the workers have it"
        )


PLAIN = Plain()


class Cipher:
    """Seals with the first of several keys, opens what any of them sealed.

    Args:
        keys: By id, each of 32 bytes.
        first: Id of the one that seals; None leaves new texts as they are.
    """

    def __init__(self, keys: Mapping[str, bytes], first: str | None) -> None:
        self._keys = dict(keys)
        self._aead = _aead()
        self.first = first

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Ids of all keys."""
        return tuple(self._keys)

    def seal(self, text: str) -> str:
        """Return `text` sealed, never twice the same."""
        if self.first is None:
            return PLAIN.seal(text)
        salt, nonce = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
        head = f"{PREFIX}{self.first}:"
        cipher = self._aead(_derived(self._keys[self.first], salt))
        sealed = cipher.encrypt(nonce, text.encode(), head.encode())
        return head + base64.b64encode(salt + nonce + sealed).decode("ascii")

    def open(self, stored: str) -> str:
        """Return the text of what `seal` returned; what is not sealed comes back as it is."""
        if not stored.startswith(PREFIX):
            return stored
        name, _, body = stored.removeprefix(PREFIX).partition(":")
        if (key := self._keys.get(name)) is None:
            known = ", ".join(map(repr, self._keys))
            raise EncryptionError(
                f"A stored value is encrypted with key {name!r}, which {SETTING} of this process does not "
                f"have (it has {known}): add it, behind the others, until 'polos encryption rotate' is done"
            )
        return self._opened(key, name, body)

    def _opened(self, key: bytes, name: str, body: str) -> str:
        try:
            sealed = base64.b64decode(body, validate=True)
            salt, nonce = sealed[:SALT_BYTES], sealed[SALT_BYTES : SALT_BYTES + NONCE_BYTES]
            cipher = self._aead(_derived(key, salt))
            text: bytes = cipher.decrypt(
                nonce, sealed[SALT_BYTES + NONCE_BYTES :], f"{PREFIX}{name}:".encode()
            )
        except (binascii.Error, ValueError, _invalid_tag()) as error:
            raise EncryptionError(
                f"A stored value cannot be decrypted: key {name!r} of {SETTING} is another one than it was "
                "encrypted with, or the value was changed"
            ) from error
        return text.decode()


def codec_of(setting: str) -> Codec:
    """Return the codec that POLOS_ENCRYPTION_KEYS asks for: ``k2:<base64>,k1:<base64>``; without keys, none.

    Raises:
        EncryptionError: A key is malformed, or the package `cryptography` is missing.
    """
    parts = [part.strip() for part in setting.split(",") if part.strip()]
    if not parts:
        return PLAIN
    keys: dict[str, bytes] = {}
    for place, part in enumerate(parts):
        if part == NO_KEY and place == 0:
            continue
        name, key = _key(part, place)
        if name in keys:
            raise EncryptionError(f"{SETTING} has two keys {name!r}; give each an id of its own")
        keys[name] = key
    if not keys:
        return PLAIN
    return Cipher(keys, None if parts[0] == NO_KEY else next(iter(keys)))


def new_key(name: str) -> str:
    """Return a new random key, as the setting has it.

    Raises:
        EncryptionError: The name cannot be an id.
    """
    if not _KEY_ID.fullmatch(name) or name == NO_KEY:
        raise EncryptionError(f"{name!r} cannot be the id of a key: use up to 32 letters, digits, _ and -")
    return f"{name}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode('ascii')}"


def key_id(stored: str) -> str | None:
    """Return the id of the key that a stored text is sealed with, None for one that is not sealed."""
    return stored.removeprefix(PREFIX).partition(":")[0][:32] if stored.startswith(PREFIX) else None


def sealed_texts(listed: str, codec: Codec) -> str:
    """Return a JSON list of [text, number] with its texts sealed."""
    return json.dumps([[codec.seal(text), number] for text, number in json.loads(listed)], ensure_ascii=False)


def _key(part: str, place: int) -> tuple[str, bytes]:
    """Return id and bytes of one key; nothing of the key gets into an error."""
    name, found, text = part.partition(":")
    which = f"key {place + 1} of {SETTING}"
    if not found or not _KEY_ID.fullmatch(name) or name == NO_KEY:
        raise EncryptionError(
            f"{which} is not of the form ID:BASE64, with an id of letters, digits, _ and -; make one with "
            "'polos encryption new-key'"
        )
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise EncryptionError(
            f"{which}, {name!r}, is not the base64 of {KEY_BYTES} bytes; make one with "
            "'polos encryption new-key'"
        )
    return name, key


def _derived(key: bytes, salt: bytes) -> bytes:
    return hmac.digest(key, b"polos value\0" + salt, "sha256")


def _aead() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra of its own
    except ImportError as error:
        raise EncryptionError(
            f"{SETTING} is set, but the package 'cryptography' is not installed: "
            "pip install 'polos[encryption]'"
        ) from error
    return AESGCM


def _invalid_tag() -> type[Exception]:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415

    return InvalidTag
