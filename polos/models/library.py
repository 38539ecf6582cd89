"""LiteLLM, with the settings it needs before and after it is imported.

Importing it costs seconds and 165 MB, so `polos.models.call` does that late and off the event loop.
"""

from __future__ import annotations

import gc
import logging
import os
from contextvars import ContextVar

# LiteLLM reads these while it is imported, and would otherwise ask the network for a price list and
# load a .env file of the working directory.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
os.environ.setdefault("LITELLM_MODE", "PRODUCTION")

import litellm
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

try:
    from litellm._internal_context import is_internal_call
except ImportError:  # a LiteLLM without this switch only costs more per call
    is_internal_call = ContextVar("is_internal_call", default=False)

__all__ = ["AsyncHTTPHandler", "is_internal_call", "litellm"]

litellm.suppress_debug_info = True
litellm.telemetry = False
litellm.disable_aiohttp_transport = True  # aiohttp complains on stderr about sessions left open at the end
if not hasattr(litellm.ModelResponse, "service_tier"):
    litellm.ModelResponse.service_tier = None  # Groq's answers may lack it, and LiteLLM stumbles over that
logging.getLogger("LiteLLM").setLevel(os.environ.get("LITELLM_LOG", "ERROR").upper())
# Some 300,000 objects that stay as long as the process. Each full collection of garbage would walk over them,
# and so would the last ones, which keep a program that was interrupted from ending for a second and more.
gc.freeze()
