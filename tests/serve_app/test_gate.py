"""The site's token gate, over ASGI."""

import asyncio
from typing import Any

import pytest

from serve_app.gate import MissingToken, TokenGate, site_token


@pytest.mark.parametrize(
    ("authorization", "status"),
    [(b"Bearer right", 200), (b"Bearer wrong", 401), (b"right", 401), (b"Bearer", 401), (None, 401)],
)
def test_only_the_token_passes(authorization: bytes | None, status: int) -> None:
    headers = [] if authorization is None else [(b"authorization", authorization)]
    assert _status({"type": "http", "headers": headers}) == status


def test_websockets_are_closed() -> None:
    assert _first({"type": "websocket", "headers": []}) == {"type": "websocket.close", "code": 1008}


def test_lifespan_passes() -> None:
    assert _first({"type": "lifespan"}) == {"type": "http.response.start", "status": 200, "headers": []}


def test_a_site_without_a_token_does_not_start() -> None:
    with pytest.raises(MissingToken, match="RAYFLEET_TOKEN_X"):
        site_token("RAYFLEET_TOKEN_X", {"RAYFLEET_TOKEN_X": ""})


def _status(scope: dict[str, Any]) -> int:
    status: int = _first(scope)["status"]
    return status


def _first(scope: dict[str, Any]) -> dict[str, Any]:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(TokenGate(app, "right")(scope, receive, send))
    return sent[0]
