"""A door behind a real port, with an event loop and a thread of its own, and a client that sends bytes as they are."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Self

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request as ColdRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.door.door import Door
from serve_app.door.exchange import Request, Sink
from serve_app.door.limits import Limits
from tests.serve_app.waiting import wait_for

JSON = [(b"content-type", b"application/json")]


class Desk:
    """The hot handler. It echoes at once, except below `/hot/held`, where the test answers, and at `/hot/bug`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.held: list[Held] = []

    def __call__(self, request: Request, sink: Sink) -> "Held":
        self.requests.append(request)
        held = Held(sink)
        if request.path.startswith("/hot/held"):
            self.held.append(held)
            return held
        if request.path == "/hot/bug":
            raise ZeroDivisionError
        said = {
            "method": request.method,
            "path": request.path,
            "query": request.query.decode(),
            "body": request.body.decode("latin-1"),
            "headers": [(name.decode(), value.decode("latin-1")) for name, value in request.headers],
        }
        body = json.dumps(said).encode()
        sink.start(200, JSON, len(body))
        sink.write(body)
        sink.finish()
        return held


class Held:
    """An exchange that notes what the door tells it."""

    def __init__(self, sink: Sink):
        self.sink = sink
        self.told: list[str] = []

    def client_left(self) -> None:
        self.told.append("left")

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")


class Running:
    """A door at work. Its loop is another thread's."""

    def __init__(self, port: int, door: Door, desk: Desk, loop: asyncio.AbstractEventLoop):
        self.port = port
        self.door = door
        self.desk = desk
        self._loop = loop

    def soon(self, call: Callable[..., object], *args: Any) -> None:
        self._loop.call_soon_threadsafe(call, *args)

    def start(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def connect(self, sent: bytes = b"") -> "Client":
        client = Client(socket.create_connection(("127.0.0.1", self.port), timeout=20))
        client.send(sent)
        return client

    def held(self, number: int = 0) -> Held:
        """The exchange of the given request below `/hot/held`, once it has come."""
        wait_for(lambda: len(self.desk.held) > number)
        return self.desk.held[number]


class Client:
    """One connection, and just enough HTTP to read answers."""

    def __init__(self, sock: socket.socket):
        self.sock = sock
        self._file = sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def head(self) -> tuple[int, dict[str, str]]:
        version, status, _ = self._file.readline().decode().split(" ", 2)
        assert version == "HTTP/1.1"
        headers: dict[str, str] = {}
        while line := self._file.readline().decode().strip():
            name, _, value = line.partition(": ")
            assert name not in headers
            headers[name] = value
        return int(status), headers

    def answer(self, *, bodiless: bool = False) -> tuple[int, dict[str, str], bytes]:
        status, headers = self.head()
        if bodiless:
            return status, headers, b""
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, b"".join(self.chunks())
        length = headers.get("content-length")
        return status, headers, self._file.read() if length is None else self._file.read(int(length))

    def chunks(self) -> Iterator[bytes]:
        """The chunks of a body. Fails if it does not end as it should."""
        while size := int(self._file.readline(), 16):
            yield self._file.read(size)
            assert self._file.readline() == b"\r\n"
        assert self._file.readline() == b"\r\n"

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def is_closed(self) -> bool:
        """Whether the end of the connection is what comes next."""
        return self._file.read(1) == b""


def error_code(body: bytes) -> str:
    """Of an error in OpenAI's shape."""
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    return str(error["code"])


async def cold_echo(request: ColdRequest) -> Response:
    """What an ASGI application sees."""
    scope = request.scope
    seen = {name: scope[name] for name in ("method", "path", "http_version", "scheme", "client", "server")}
    raw = {name: scope[name].decode() for name in ("raw_path", "query_string")}
    return JSONResponse({**seen, **raw, "body": (await request.body()).decode(), "headers": dict(request.headers)})


COLD = Starlette(routes=[Route("/cold/{rest:path}", cold_echo, methods=["GET", "POST"])])


@contextmanager
def running(limits: Limits | None = None, app: Any = COLD) -> Iterator[Running]:
    """A door on a port of its own."""
    desk = Desk()
    started: list[Running] = []
    stop = threading.Event()

    async def serve() -> None:
        door = Door(app, desk, lambda method, path: path.startswith("/hot"), limits or Limits())
        with socket.create_server(("127.0.0.1", 0)) as listening:
            await door.open(listening)
            started.append(Running(listening.getsockname()[1], door, desk, asyncio.get_running_loop()))
            await asyncio.to_thread(stop.wait)
            door.close()
            await asyncio.sleep(0)  # connections are told that they are lost

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_for(lambda: started)
        yield started[0]
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def door() -> Iterator[Running]:
    with running() as door:
        yield door
