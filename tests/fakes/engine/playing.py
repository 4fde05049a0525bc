"""Plays one answer to the end that its fault has planned."""

import asyncio
from collections.abc import Callable, Sequence

from tests.fakes.engine.answers import BROKEN, SSE, Event, Streamed, Whole, dump
from tests.fakes.engine.faults import Behaviour, End, Fault
from tests.fakes.engine.wire import Broken, Response, reset

BREAKS = {End.CUT, End.RESET, End.STALL, End.MID_EVENT}
COMMENT = b": keep-alive\n\n"
MALFORMED = b'data: {"id":"chatcmpl-malformed","object":"chat.completion.chunk","choices":[{"index":\n\n'


class Player:
    """For one answer. `tally` is told of tokens as they are written, `begun` of the status."""

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        fault: Fault,
        behaviour: Behaviour,
        begun: Callable[[int], None],
        tally: Callable[[int], None],
    ):
        self._writer = writer
        self._fault = fault
        self._begun = begun
        self._tally = tally
        self._response = Response(writer, fault)
        self._first_token_s = behaviour.first_token_s if fault.first_token_s is None else fault.first_token_s
        self._token_s = behaviour.token_s if fault.token_s is None else fault.token_s
        self._padding = fault.padding
        self._disturbed = False

    async def play(self, answer: Whole | Streamed) -> None:
        """Raises Ended where the connection is over, as planned."""
        await asyncio.sleep(self._fault.head_after_s)
        if self._fault.end in BREAKS and self._fault.after is None:
            await self._break()
        if isinstance(answer, Streamed):
            await self._stream(answer)
        elif self._fault.end is End.ERROR:
            await self._send_whole(Whole(dump(BROKEN), 500))
        else:
            await self._send_whole(answer)

    async def _send_whole(self, whole: Whole) -> None:
        if whole.tokens:
            await asyncio.sleep(self._first_token_s + (whole.steps - 1) * self._token_s)
        body = self._padded(whole.body)
        if self._fault.end is End.MALFORMED:
            body = body[:-1]
        await self._begin(whole.status, whole.content_type, len(body))
        if self._fault.end in BREAKS:
            await self._response.send(body[: len(body) // 2 if self._fault.after else 0])
            await self._break()
        await self._response.send(body)
        self._tally(whole.tokens)
        await self._response.finish()

    async def _stream(self, streamed: Streamed) -> None:
        await self._begin(200, SSE, None)
        written, wait_s = 0, self._first_token_s
        for event in streamed.events:
            if event.step:
                await asyncio.sleep(wait_s)
                wait_s = self._token_s
            if self._is_due(event, written):
                await self._disturb(event, streamed.failure)
                if self._fault.end is not End.MALFORMED:
                    break
            await self._send_event(event)
            written += event.tokens
        await self._response.finish()

    async def _disturb(self, event: Event, failure: Sequence[Event]) -> None:
        """What is planned, in place of this event or before it. Raises Broken."""
        match self._fault.end:
            case End.MALFORMED:
                await self._response.send(MALFORMED)
            case End.ERROR:
                for last in failure:
                    await self._response.send(last.data)
            case End.MID_EVENT:
                await self._response.send(event.data[: len(event.data) // 2])
        self._disturbed = True
        if self._fault.end in BREAKS:
            await self._break()

    def _is_due(self, event: Event, written: int) -> bool:
        """Whether what is planned comes now."""
        fault = self._fault
        if fault.end in (End.WHOLE, End.FILTER) or (fault.end is End.MALFORMED and self._disturbed):
            return False
        if fault.end is End.NO_DONE and fault.after is None:
            return event.last
        return written >= (fault.after or 0)

    async def _send_event(self, event: Event) -> None:
        if self._fault.comments:
            await self._response.send(COMMENT)
        await self._response.send(self._padded(event.data))
        self._tally(event.tokens)

    async def _begin(self, status: int, content_type: str, length: int | None) -> None:
        await self._response.begin(status, content_type, length)
        self._begun(status)

    def _padded(self, data: bytes) -> bytes:
        """Once."""
        padding, self._padding = self._padding, 0
        return data.replace(b"{", b'{"padding":"%s",' % (b"x" * padding), 1) if padding else data

    async def _break(self) -> None:
        """Raises Broken, or waits until it is cancelled."""
        match self._fault.end:
            case End.STALL:
                await asyncio.Event().wait()
            case End.RESET:
                await reset(self._writer)
            case _:
                self._writer.close()
        raise Broken
