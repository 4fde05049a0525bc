"""The site's door: connections come and go, break as planned, and are refused while the site is down."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from tests.fakes.engine.answers import Streamed, Whole
from tests.fakes.engine.faults import Closing, Fault, Flapping
from tests.fakes.engine.playing import Player
from tests.fakes.engine.site import STATE_PATH, Site
from tests.fakes.engine.wire import LINE_LIMIT, Broken, Ended, Request, read_request

Serve = Callable[["Connection", asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Connection(asyncio.StreamReaderProtocol):
    """Knows at once when the client has left."""

    def __init__(self, serve: Serve):
        super().__init__(asyncio.StreamReader(limit=LINE_LIMIT), lambda reader, writer: serve(self, reader, writer))
        self.left = asyncio.Event()
        self.dropped = False
        """By us, with the whole site."""

    def eof_received(self) -> bool | None:
        self.left.set()
        return super().eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self.left.set()
        super().connection_lost(error)

    async def while_here(self, playing: Coroutine[Any, Any, None]) -> None:
        """Raises Ended as `playing` does, ConnectionResetError when the client leaves before its end."""
        play, leaving = asyncio.create_task(playing), asyncio.create_task(self.left.wait())
        try:
            await asyncio.wait((play, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not play.done():
                raise ConnectionResetError
            play.result()
        finally:
            play.cancel()
            leaving.cancel()
            await asyncio.gather(play, leaving, return_exceptions=True)


class Door:
    """The site's address, which is this process's own also while nobody listens and connections are refused."""

    def __init__(self, site: Site, port: int):
        self._site = site
        self._held = bound(port)
        self.port: int = self._held.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, asyncio.StreamWriter] = {}

    async def open(self) -> None:
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(
                lambda: Connection(self._serve), sock=bound(self.port), backlog=1024
            )

    def close(self) -> None:
        """As if every process of the site were killed."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()

    def drop(self) -> None:
        """Every open connection."""
        for connection, writer in self._connections.items():
            connection.dropped = True
            writer.transport.abort()

    async def flap(self, flapping: Flapping) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + flapping.for_s
        while loop.time() < end:
            self.close()
            await asyncio.sleep(flapping.down_s)
            await self.open()
            await asyncio.sleep(flapping.up_s)

    async def _serve(self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[connection] = writer
        number = self._site.books.open()
        last = Fault()
        try:
            while (request := await read_request(reader, writer)) and last.closing is not Closing.ON_NEXT:
                last = await self._reply(connection, number, request, writer)
        except (Ended, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            del self._connections[connection]
            self._site.books.close()
            # What is closing already still has to deliver what was written.
            if not writer.is_closing():
                writer.transport.abort()

    async def _reply(
        self, connection: Connection, number: int, request: Request, writer: asyncio.StreamWriter
    ) -> Fault:
        """The fault that was played. Raises Ended."""
        site, books = self._site, self._site.books
        if request.path == STATE_PATH:
            books.read_state()
            fault = site.behaviour.state
            player = Player(writer, fault, site.behaviour, lambda _: None, lambda _: None)
            await connection.while_here(player.play(site.answer(request, fault, 0)))
            return fault
        fault = site.next_fault(request.path)
        received = books.receive(request, number, fault)
        outcome = "left"
        player = Player(
            writer,
            fault,
            site.behaviour,
            lambda status: books.begin(received, status),
            lambda tokens: books.tally(received, tokens),
        )
        try:
            await connection.while_here(self._play(player, request, site.answer(request, fault, received)))
            outcome = "answered"
        except Broken:
            outcome = "broken"
            raise
        except Ended:
            outcome = "answered"
            raise
        finally:
            books.finish(received, "broken" if connection.dropped else outcome)
        return fault

    async def _play(self, player: Player, request: Request, answer: Whole | Streamed) -> None:
        async with AsyncExitStack() as stack:
            if isinstance(answer, Streamed) or answer.tokens:
                await stack.enter_async_context(self._site.batched(request.path.split("/")[2]))
            await player.play(answer)


def bound(port: int) -> socket.socket:
    """On loopback. Several sockets of one process may share a port; only those that listen get connections."""
    bound_socket = socket.socket()
    bound_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound_socket.bind(("127.0.0.1", port))
    return bound_socket
