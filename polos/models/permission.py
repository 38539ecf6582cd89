"""Whether this process may ask models. Everything may, unless a test forbids it."""

from __future__ import annotations

import ipaddress
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from polos.errors import ModelRequestForbiddenError

_rules: list[Rule] = []  # the last one counts; of the process, for workers in threads obey it too


class Rule(AbstractContextManager["Rule"]):
    """What is allowed from its making until `end`, or the end of a ``with`` block.

    Args:
        anywhere: Requests to any provider.
        local: Requests to servers on this machine.
    """

    def __init__(self, *, anywhere: bool, local: bool) -> None:
        self.anywhere = anywhere
        self.local = local
        _rules.append(self)

    def end(self) -> None:
        """Have what was allowed before; harmless when it has ended."""
        if self in _rules:
            _rules.remove(self)

    def __exit__(self, *_: object) -> None:
        self.end()


def forbids_all() -> bool:
    """Whether no request may be made at all: nothing has to be loaded for one."""
    return bool(_rules) and not (_rules[-1].anywhere or _rules[-1].local)


def check_allowed(provider: str, model: str, base_url: str | None) -> None:
    """Return if a request may be made; `base_url` is None for the provider's public address.

    Raises:
        ModelRequestForbiddenError: It may not.
    """
    rule = _rules[-1] if _rules else None
    if rule is None or rule.anywhere or (rule.local and is_local(base_url)):
        return
    where = f" at {base_url}" if base_url else ""
    but = " but to servers of this machine" if rule.local else ""
    raise ModelRequestForbiddenError(
        f"A test was about to ask {provider}{where} for an answer of {model!r}, and requests to models are "
        f"forbidden{but}. Give the runtime a model of the test's, polos.testing.runtime(model=[...]), or "
        "allow requests: polos.testing.allow_model_requests(), local_only=True for a server of this machine"
    )


def is_local(base_url: str | None) -> bool:
    """Whether a URL names this machine."""
    host = urlsplit(base_url or "").hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
