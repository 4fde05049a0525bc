"""Streaming an answer through to the client, and what happens when it is cut."""

import asyncio

from starlette.types import Send

from serve_app.errors import UpstreamFailed, error_body
from serve_app.relay.attempt import Begun
from serve_app.relay.headers import RawHeaders
from serve_app.relay.sse import EventStream
from serve_app.relay.upstream import Answer, UpstreamError, UpstreamSilent


async def stream(begun: Begun, headers: list[tuple[bytes, bytes]], idle_timeout_s: float, send: Send) -> bool:
    """Pass the answer on, byte for byte, as fast as the client takes it. False when it was cut.

    A cut answer never ends as a success: an event stream gets an error event, and then this returns without the
    message that would complete the response, at which every ASGI server breaks the connection off.
    """
    events = EventStream() if _is_event_stream(begun.answer.headers) else None
    await send({"type": "http.response.start", "status": begun.answer.status, "headers": headers})
    try:
        await _pass_on(begun, events, idle_timeout_s, send)
        if events and not events.finished:
            raise UpstreamError("it ended without [DONE]")
    except UpstreamError as error:
        if events:
            await send({"type": "http.response.body", "body": _error_event(error), "more_body": True})
        return False
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    return True


async def _pass_on(begun: Begun, events: EventStream | None, idle_timeout_s: float, send: Send) -> None:
    chunk = begun.first
    while chunk:
        whole = events.feed(chunk) if events else chunk
        if whole:
            await send({"type": "http.response.body", "body": whole, "more_body": True})
        chunk = await _read(begun.answer, idle_timeout_s)


async def _read(answer: Answer, idle_timeout_s: float) -> bytes:
    try:
        async with asyncio.timeout(idle_timeout_s):
            return await answer.read()
    except TimeoutError as error:
        raise UpstreamSilent(f"no byte for {idle_timeout_s:g} s") from error


def _error_event(error: UpstreamError) -> bytes:
    return b"data: " + error_body(UpstreamFailed(f"The answer was cut off: {error}.")) + b"\n\n"


def _is_event_stream(headers: RawHeaders) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
