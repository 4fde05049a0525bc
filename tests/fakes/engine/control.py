"""The second door, through which tests say what the site shall do and ask what it saw. No fault reaches it."""

import asyncio

from pydantic import TypeAdapter

from tests.fakes.engine.faults import Behaviour, Fault, Flapping, Seen
from tests.fakes.engine.server import Door
from tests.fakes.engine.site import Site
from tests.fakes.engine.wire import LINE_LIMIT, Request, Response, read_request

FAULTS = TypeAdapter(tuple[Fault, ...])
BEHAVIOUR = TypeAdapter(Behaviour)
FLAPPING = TypeAdapter(Flapping)
SEEN = TypeAdapter(Seen)


class Control:
    """Answers on a port of its own; every order is obeyed before its answer is sent."""

    def __init__(self, site: Site, door: Door):
        self._site = site
        self._door = door
        self._flapping: asyncio.Task[None] | None = None

    async def listen(self, port: int) -> int:
        """The port, for 0 a free one."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=LINE_LIMIT)
        bound_port: int = server.sockets[0].getsockname()[1]
        return bound_port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await read_request(reader, writer):
                body = await self._obey(request)
                response = Response(writer, Fault())
                await response.begin(404 if body is None else 200, "application/json", len(body or b""))
                await response.send(body or b"")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _obey(self, request: Request) -> bytes | None:
        """None: no such order."""
        site, door = self._site, self._door
        match request.path:
            case "/seen":
                return SEEN.dump_json(site.books.seen())
            case "/plan":
                site.plan.extend(FAULTS.validate_json(request.body))
            case "/behaviour":
                site.behaviour = BEHAVIOUR.validate_json(request.body)
                site.wake()
            case "/forget":
                site.plan.clear()
                site.books.forget()
            case "/up":
                await door.open()
            case "/down":
                door.close()
            case "/drop":
                door.drop()
            case "/flap":
                self._flapping = asyncio.create_task(door.flap(FLAPPING.validate_json(request.body)))
            case _:
                return None
        return b"{}"
