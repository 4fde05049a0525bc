"""The site's own door: nothing at a site answers without the site's token."""

import hmac
import json
from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

_REFUSAL = json.dumps(
    {
        "error": {
            "message": "This endpoint answers only to the fleet's ingress: send the site's token as a bearer token.",
            "type": "authentication_error",
            "param": None,
            "code": "invalid_site_token",
        }
    }
).encode()


class MissingToken(Exception):
    """The environment of this process lacks the site's token."""


def site_token(variable: str, environ: Mapping[str, str]) -> str:
    """Raises MissingToken: a site without a token would otherwise stand open."""
    token = environ.get(variable, "")
    if not token:
        raise MissingToken(f"set {variable} in the environment of every node of this site's Ray cluster")
    return token


class TokenGate:
    """ASGI middleware: passes requests that carry `Authorization: Bearer <token>`, answers 401 to all others."""

    def __init__(self, app: ASGIApp, token: str):
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._admits(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": _REFUSAL})

    def _admits(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, self._expected)
