"""A fake vLLM in a process of its own: `python -m bench.router.engine PORT…`. Each port stands for one site.

It reads no more of a request than it needs, and writes bytes that were built before. Whether it is fast enough, the
benchmark itself checks, by driving it directly.
"""

import asyncio
import gc
import sys
import time
from functools import cache

import httptools
import uvloop

from bench.router.stream import Pacer, Stream
from bench.router.wire import MODEL, Ask, Fields, json_response, stream_answer, whole_answer

HOST = "127.0.0.1"
RELEASE = "0" * 12
HIGH_WATER = 2**16
"""Bytes that may wait to be sent before a stream pauses."""
BACKLOG = 4096
USUAL = b'{"model": "%b", "max_tokens": 64}' % MODEL.encode()


class Site:
    """What one port stands for."""

    def __init__(self, name: str, pacer: Pacer):
        self.name = name
        self.pacer = pacer
        self.running = 0
        """Streams."""

    def state(self) -> Fields:
        """`clusters.state.SiteState`."""
        placement = {
            "model": MODEL,
            "release": RELEASE,
            "readiness": "ready",
            "replicas": 1,
            "target_replicas": 1,
            "capacity": 4096,
            "running": self.running,
            "waiting": 0,
        }
        return {"site": self.name, "at": time.time(), "placements": [placement]}


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, site: Site):
        self._site = site
        self._stream: Stream | None = None
        self._path = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # asyncio's own types say no more
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._path.endswith(b"/completions"):
            self._transport.write(self._page())
        elif b'"stream"' in self._body or b'"return_token_ids"' in self._body:
            self._complete(Ask.read(self._path, self._body))
        else:
            self._transport.write(usual_answer(self._path))

    def _complete(self, ask: Ask) -> None:
        if ask.stream:
            self._site.running += 1
            self._stream = Stream(self._transport, stream_answer(ask), ask.pace, self._stream_ended)
            self._stream.start(self._site.pacer)
        else:
            self._transport.write(whole_answer(ask))

    def _stream_ended(self) -> None:
        self._site.running -= 1
        self._stream = None

    def _page(self) -> bytes:
        match self._path:
            case b"/fleet/state":
                return json_response("200 OK", self._site.state())
            case b"/health":
                return json_response("200 OK", {})
            case path if path.endswith(b"/v1/models"):
                return json_response("200 OK", {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        return json_response("404 Not Found", {"detail": "Not Found"})

    def pause_writing(self) -> None:
        if self._stream:
            self._stream.pause()

    def resume_writing(self) -> None:
        if self._stream:
            self._stream.resume()

    def connection_lost(self, error: Exception | None) -> None:
        if self._stream:
            self._stream.end()


@cache
def usual_answer(path: bytes) -> bytes:
    """The answer to every request that asks for nothing special: its body is not even parsed."""
    return whole_answer(Ask.read(path, USUAL))


async def serve(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    pacer = Pacer()
    for port in ports:
        site = Site(site_name(port), pacer)
        await loop.create_server(lambda site=site: Connection(site), HOST, port, backlog=BACKLOG)  # type: ignore[misc]
    gc.freeze()
    gc.disable()
    await asyncio.Event().wait()


def site_name(port: int) -> str:
    return f"site-{port}"


if __name__ == "__main__":
    uvloop.run(serve([int(port) for port in sys.argv[1:]]))
