"""The largest body of a request that is read."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polos.server.errors import ApiError, error_answer


class BodyLimit:
    """ASGI middleware: answers 413 to what is larger, at once if its size is announced."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _announced(scope) > self._max_bytes:
            refusal = self._refusal()
            answer = error_answer(refusal.status_code, str(refusal.detail), refusal.headers)
            await answer(scope, receive, send)
        else:
            await self._app(scope, self._counting(receive), send)

    def _counting(self, receive: Receive) -> Receive:
        left = self._max_bytes

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise self._refusal()
            return message

        return counted

    def _refusal(self) -> ApiError:
        return ApiError(
            413,
            f"The body is larger than the {self._max_bytes} bytes that POLOS_MAX_REQUEST_BYTES allows",
            {"Connection": "close"},
        )


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
