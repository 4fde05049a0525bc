"""The door as an ASGI server."""

import asyncio
import json
import logging
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.serve_app.door.conftest import Running, error_code, running
from tests.serve_app.waiting import wait_for


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


def test_an_application_sees_the_request_as_asgi_describes_it(door: Running) -> None:
    head = get("/cold/a%20b?c=%20", "X-Y: z", "Transfer-Encoding: chunked", method="POST")
    with door.connect(head + b"2\r\nhi\r\n0\r\n\r\n") as client:
        status, headers, body = client.answer()
        assert json.loads(body) == {
            "method": "POST",
            "path": "/cold/a b",
            "raw_path": "/cold/a%20b",
            "query_string": "c=%20",
            "http_version": "1.1",
            "scheme": "http",
            "client": list(client.sock.getsockname()),
            "server": ["127.0.0.1", door.port],
            "body": "hi",
            "headers": {"host": "a", "x-y": "z", "transfer-encoding": "chunked"},
        }
        assert (status, headers["content-type"]) == (200, "application/json")
        assert headers["content-length"] == str(len(body))
    assert door.desk.requests == []


def test_cold_and_hot_requests_share_a_connection_in_order(door: Running) -> None:
    with door.connect(get("/cold/1") + get("/hot/2") + get("/cold/3")) as client:
        assert [json.loads(client.answer()[2])["path"] for _ in range(3)] == ["/cold/1", "/hot/2", "/cold/3"]


def test_head_of_a_cold_route_has_the_length_of_its_body_and_no_body(door: Running) -> None:
    with door.connect(get("/cold/1") + get("/cold/1", method="HEAD") + get("/hot")) as client:
        whole = client.answer()[1]
        status, headers, _ = client.answer(bodiless=True)
        assert status == 200
        assert abs(int(headers["content-length"]) - int(whole["content-length"])) == len("HEAD") - len("GET")
        assert client.answer()[0] == 200


async def stream(request: Request) -> Response:
    async def numbers() -> Any:
        for number in range(3):
            yield f"{number}"
            await asyncio.sleep(0)

    return StreamingResponse(numbers())


async def close(request: Request) -> Response:
    return PlainTextResponse("bye", headers={"connection": "close"})


async def fail(request: Request) -> Response:
    raise ZeroDivisionError


async def half(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"abc", "more_body": True})


async def silent(scope: Any, receive: Any, send: Any) -> None:
    pass


async def wait_for_leaving(scope: Any, receive: Any, send: Any) -> None:
    seen = scope["app"].state.seen
    while (message := await receive())["type"] != "http.disconnect":
        seen.append(message["type"])
    seen.append("http.disconnect")


async def flood(scope: Any, receive: Any, send: Any) -> None:
    """An answer without an end, whose progress and end are noted."""
    seen = scope["app"].state.seen
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        while True:
            seen.append("chunk")
            await send({"type": "http.response.body", "body": b"x" * 2**16, "more_body": True})
    finally:
        seen.append("stopped")


def application() -> Starlette:
    app = Starlette(routes=[Route(f"/{each.__name__}", each) for each in (stream, close, fail)])
    for each in (half, silent, flood, wait_for_leaving):
        app.mount(f"/{each.__name__}", each)
    app.state.seen = []
    return app


def test_a_streamed_answer_is_chunked() -> None:
    with running(app=application()) as door, door.connect(get("/stream")) as client:
        status, headers = client.head()
        assert list(client.chunks()) == [b"0", b"1", b"2"]
        assert (status, headers["transfer-encoding"]) == (200, "chunked")


def test_an_application_may_close_the_connection() -> None:
    with running(app=application()) as door, door.connect(get("/close")) as client:
        assert client.answer()[1]["connection"] == "close"
        assert client.is_closed()


@pytest.mark.parametrize("path", ["/fail", "/silent/"])
def test_an_application_that_fails_gives_a_500(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with running(app=application()) as door, door.connect(get(path) + get("/hot")) as client:
        status, _, body = client.answer()
        assert status == 500
        if path == "/silent/":
            assert error_code(body) == "internal_error"
        else:
            wait_for(lambda: "ZeroDivisionError" in caplog.text)
        assert client.answer()[0] == 200


def test_an_application_that_stops_within_an_answer_breaks_it_off() -> None:
    with running(app=application()) as door, door.connect(get("/half/")) as client:
        client.head()
        with pytest.raises(ValueError, match="invalid literal"):
            list(client.chunks())


def test_an_application_is_told_when_its_client_leaves() -> None:
    app = application()
    with running(app=app) as door:
        client = door.connect(get("/wait_for_leaving/"))
        wait_for(lambda: app.state.seen == ["http.request"])
        client.close()
        wait_for(lambda: app.state.seen == ["http.request", "http.disconnect"], 5)


def test_an_application_waits_for_a_slow_client_and_stops_when_it_leaves(caplog: pytest.LogCaptureFixture) -> None:
    app = application()
    caplog.set_level(logging.ERROR)
    with running(app=app) as door:
        client = door.connect(get("/flood/"))
        client.head()
        wait_for(lambda: len(app.state.seen) > 1)
        produced = -1
        while produced != len(app.state.seen):
            produced = len(app.state.seen)
            door.start(asyncio.sleep(0.2)).result()
        client.close()
        wait_for(lambda: app.state.seen[-1] == "stopped")
        wait_for(lambda: not door.door.connections)
    assert caplog.text == ""
