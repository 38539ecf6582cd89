"""Links by which somebody without a key may answer one wait: signed, and only for a time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass

from polos.errors import InputError


@dataclass(frozen=True)
class ApprovalRight:
    """What a link allows: to see and answer one wait of one run tree, until `expires_at` (epoch seconds)."""

    project: str
    root_id: str
    step_key: str
    expires_at: float

    def token(self, secret: str) -> str:
        """Return the text that proves it."""
        text = json.dumps([self.project, self.root_id, self.step_key, int(self.expires_at)])
        payload = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        return f"{payload}.{_signature(secret, payload)}"


def right_of(token: str, secret: str) -> ApprovalRight:
    """Return what a token allows.

    Raises:
        ValueError: It is not one of ours, or it has expired.
    """
    payload, _, signature = token.partition(".")
    if not secret or not hmac.compare_digest(_signature(secret, payload).encode(), signature.encode()):
        raise InputError("This link was not made here, or with another POLOS_APPROVAL_SECRET")
    padded = payload + "=" * (-len(payload) % 4)
    project, root_id, step_key, expires_at = json.loads(base64.urlsafe_b64decode(padded))
    if time.time() > expires_at:
        raise InputError("This link has expired; ask for an answer by other means, or start the run again")
    return ApprovalRight(project, root_id, step_key, expires_at)


def _signature(secret: str, payload: str) -> str:
    return hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
