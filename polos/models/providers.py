"""The providers: how their names, keys and base URLs map to what LiteLLM wants."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from polos.errors import MissingCredentialError, ModelError, ModelErrorKind


class Wire(Enum):
    """The request format a provider speaks, which decides where options go in it."""

    CHAT = "chat"
    """OpenAI chat completions: options are top-level fields of the request."""
    ANTHROPIC = "anthropic"
    """Anthropic messages: options are top-level fields too."""
    TRANSLATED = "translated"
    """A format of its own, in which LiteLLM places the usual options."""
    LITELLM = "litellm"
    """Whatever the model name says; LiteLLM decides everything."""


@dataclass(frozen=True)
class Provider:
    """One provider as users name it."""

    name: str
    prefix: str
    wire: Wire
    key_variables: tuple[str, ...] = ()
    base_url_variables: tuple[str, ...] = ()
    takes_tool_images: bool = False
    """Whether what a tool returned may hold images, in the format of chat completions."""

    def litellm_model(self, model: str) -> str:
        """Return `model` as LiteLLM names it: with the provider's prefix, once."""
        if self.name == "ollama":
            model = model.removeprefix("ollama/")  # this prefix means the completion API, which has no tools
        return model if model.startswith(self.prefix) else self.prefix + model


@dataclass(frozen=True)
class Endpoint:
    """Where a call goes and with which key."""

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    api_version: str | None = None


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider("openai", "openai/", Wire.CHAT, ("OPENAI_API_KEY",), ("OPENAI_BASE_URL",)),
        Provider(
            "anthropic", "anthropic/", Wire.ANTHROPIC, ("ANTHROPIC_API_KEY",), ("ANTHROPIC_BASE_URL",), True
        ),
        Provider(
            "gemini",
            "gemini/",
            Wire.TRANSLATED,
            ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            ("GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"),
            takes_tool_images=True,
        ),
        Provider("groq", "groq/", Wire.CHAT, ("GROQ_API_KEY",), ("GROQ_BASE_URL",)),
        Provider("fireworks", "fireworks_ai/", Wire.CHAT, ("FIREWORKS_API_KEY",), ("FIREWORKS_BASE_URL",)),
        Provider("together", "together_ai/", Wire.CHAT, ("TOGETHER_API_KEY",), ("TOGETHER_BASE_URL",)),
        Provider("azure", "azure/", Wire.CHAT, ("AZURE_OPENAI_API_KEY",), ("AZURE_OPENAI_ENDPOINT",)),
        Provider("ollama", "ollama_chat/", Wire.TRANSLATED, (), ("OLLAMA_HOST",)),
        Provider("litellm", "", Wire.LITELLM),
    )
}
_added: dict[str, type[Any]] = {}
"""The classes users registered, by name."""
LLM_APIS = ("responses", "chat_completions")
AZURE_VERSION_VARIABLES = ("AZURE_OPENAI_API_VERSION", "OPENAI_API_VERSION")


def check_provider(name: str) -> str:
    """Return `name` as the key of `PROVIDERS`, or of a provider of the user's own.

    Raises:
        ValueError: There is no such provider.
    """
    if (key := name.strip().lower()) not in PROVIDERS and key not in _added:
        known = ", ".join(sorted((*PROVIDERS, *_added)))
        raise ValueError(
            f"Unknown model provider {name!r}; use one of {known}, or import the module that registers "
            "it (register_provider) first"
        )
    return key


def add_provider(name: str, provider: type[Any]) -> None:
    """Make a class of the user's own the provider called `name`.

    Raises:
        ValueError: The name is empty, built in, or another class's.
    """
    key = name.strip().lower()
    if not key or "/" in key:
        raise ValueError(f"A provider cannot be called {name!r}: its name stands before the / of a model")
    if key in PROVIDERS:
        raise ValueError(f"Provider {name!r} is built in; register yours under another name")
    before = _added.get(key)
    if before is not None and _place(before) != _place(provider):  # a module that is loaded again may
        raise ValueError(
            f"Provider {name!r} is {_place(before)} already; give {_place(provider)} another name"
        )
    _added[key] = provider


def added_provider(name: str) -> type[Any] | None:
    """Return the class the user registered under a checked name, None for those built in."""
    return _added.get(name)


def _place(provider: type[Any]) -> str:
    return f"{provider.__module__}.{provider.__qualname__}"


def check_llm_api(name: str | None) -> str | None:
    """Return `name`, which says what API of OpenAI to use; None means its Responses API.

    Raises:
        ValueError: There is no such API.
    """
    if name not in (None, *LLM_APIS):
        raise ValueError(f"Unknown provider_llm_api {name!r}; use one of {', '.join(LLM_APIS)} or None")
    return name


def find_endpoint(
    provider: Provider,
    model: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    api_version: str | None = None,
) -> Endpoint:
    """Return where calls to `provider` go: the given values, else the usual environment variables.

    Raises:
        MissingCredentialError: The provider needs a key and no variable holds one.
        ModelError: Azure without an endpoint.
    """
    api_key = api_key or _first_variable(provider.key_variables)
    if provider.key_variables and not api_key:
        raise MissingCredentialError(
            f"Set {' or '.join(provider.key_variables)}: provider {provider.name!r} needs a key",
            provider=provider.name,
            model=model,
            kind=ModelErrorKind.AUTHENTICATION,
        )
    base_url = base_url or _first_variable(provider.base_url_variables)
    if provider.name == "azure" and not base_url:
        raise ModelError(
            "Set AZURE_OPENAI_ENDPOINT or provider_base_url: provider 'azure' has no public base URL",
            provider=provider.name,
            model=model,
        )
    return Endpoint(
        api_key=api_key,
        base_url=_litellm_base_url(provider.name, base_url),
        api_version=api_version or _first_variable(AZURE_VERSION_VARIABLES),
    )


def api_key_of(provider: str, given: str | None) -> str | None:
    """Return the key that a call to `provider` uses: `given`, else that of the usual variables, if any."""
    known = PROVIDERS.get(provider.strip().lower())
    return given or (_first_variable(known.key_variables) if known else None)


def _first_variable(names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def _litellm_base_url(provider: str, base_url: str | None) -> str | None:
    """Return the base URL with or without the version, whichever LiteLLM expects for this provider."""
    if provider == "ollama":
        base_url = base_url or "http://localhost:11434"
        base_url = base_url if "://" in base_url else f"http://{base_url}"
        return base_url.replace("//0.0.0.0", "//127.0.0.1").rstrip("/")  # the address a server listens on
    if base_url is None:
        return None
    base_url = base_url.rstrip("/")
    if provider == "anthropic":
        return base_url.removesuffix("/v1")
    if provider == "gemini" and not re.search(r"/v\d+\w*$", base_url):
        return f"{base_url}/v1beta"
    return base_url
