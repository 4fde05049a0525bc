"""Bodies that come too slowly, or not to their end."""

import asyncio

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from serve_app.body import ClientLeft, read_body
from serve_app.errors import BodyTooSlow


class Sender:
    """Sends these messages, and then nothing more."""

    def __init__(self, *messages: Message):
        self._messages = list(messages)

    async def __call__(self) -> Message:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)


PART: Message = {"type": "http.request", "body": b"part", "more_body": True}


def test_parts_are_joined() -> None:
    receive = Sender(PART, {"type": "http.request", "body": b" two"})
    assert asyncio.run(read_body(receive, Headers(), 8)) == b"part two"


def test_a_slow_body_is_refused() -> None:
    with pytest.raises(BodyTooSlow):
        asyncio.run(read_body(Sender(PART), Headers(), 8, deadline_s=0.01))


def test_a_client_may_leave_in_the_middle() -> None:
    with pytest.raises(ClientLeft):
        asyncio.run(read_body(Sender(PART, {"type": "http.disconnect"}), Headers(), 8))
