"""Reading a request's body: bounded in size and in time."""

import asyncio
from typing import NoReturn

from starlette.datastructures import Headers
from starlette.types import Receive

from serve_app.errors import BodyTooLarge, BodyTooSlow

DEADLINE_S = 60.0
"""For the whole body."""

LINGER_S = 1.0
"""How long the rest of a refused body is swallowed: a connection that is closed on unread bytes is reset, and the
client would not see the answer."""


class ClientLeft(Exception):
    """The client closed its connection before its request was whole."""


async def read_body(receive: Receive, headers: Headers, limit: int, deadline_s: float = DEADLINE_S) -> bytes:
    """The whole body. Raises BodyTooLarge, BodyTooSlow and ClientLeft."""
    if int(headers.get("content-length", 0)) > limit:
        await _refuse(receive, limit)
    try:
        async with asyncio.timeout(deadline_s):
            return await _read(receive, limit)
    except TimeoutError as error:
        raise BodyTooSlow(deadline_s) from error


async def _read(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        chunk, more = await _chunk(receive)
        size += len(chunk)
        if size > limit:
            await _refuse(receive, limit)
        chunks.append(chunk)
    return b"".join(chunks)


async def _refuse(receive: Receive, limit: int) -> NoReturn:
    try:
        async with asyncio.timeout(LINGER_S):
            while (await _chunk(receive))[1]:
                pass
    except TimeoutError:
        pass
    raise BodyTooLarge(limit)


async def _chunk(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientLeft
    return message.get("body", b""), message.get("more_body", False)
