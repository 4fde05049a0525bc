"""HTTP/1.1 by hand, so that it can also be broken by hand."""

import asyncio
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from tests.fakes.engine.faults import Closing, Fault, Framing

LINE_LIMIT = 2**18
RESET_DELAY_S = 0.05
"""Seconds that the network gets to deliver what was written, which a reset would discard."""


@dataclass(frozen=True, slots=True)
class Request:
    """As it arrived; the path is without its query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Ended(Exception):
    """The connection is over, as planned."""


class Broken(Ended):
    """And its answer is not whole."""


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The next one; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = start.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    body = await _read_chunks(reader) if chunked else await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, target.partition("?")[0], headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int((await reader.readline()).partition(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    while (await reader.readline()).strip():
        pass
    return b"".join(chunks)


class Response:
    """One answer on one connection, framed and delivered as its fault says."""

    def __init__(self, writer: asyncio.StreamWriter, fault: Fault):
        self._writer = writer
        self._fault = fault
        self._framing = fault.framing
        self._gzip = zlib.compressobj(wbits=31) if fault.gzip else None

    async def begin(self, status: int, content_type: str, length: int | None) -> None:
        """Sends the head. Without a length the body is chunked, unless the fault says otherwise."""
        if self._framing in (None, Framing.LENGTH):
            self._framing = Framing.CHUNKED if length is None or self._gzip else Framing.LENGTH
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "server: uvicorn", f"content-type: {content_type}"]
        lines += [f"{name}: {value}" for name, value in self._fault.headers]
        if self._gzip:
            lines.append("content-encoding: gzip")
        if self._framing is Framing.LENGTH:
            lines.append(f"content-length: {length}")
        if self._framing is Framing.CHUNKED:
            lines.append("transfer-encoding: chunked")
        if self._framing is Framing.UNTIL_CLOSE or self._fault.closing is Closing.ANNOUNCED:
            lines.append("connection: close")
        early = b"HTTP/1.1 103 Early Hints\r\nlink: </hint>; rel=preload\r\n\r\n" * self._fault.interim
        self._writer.write(early + "\r\n".join([*lines, "", ""]).encode("latin-1"))
        await self._writer.drain()

    async def send(self, data: bytes) -> None:
        """A part of the body."""
        if self._gzip:
            data = self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        for piece in _pieces(data, self._fault.piece or len(data)):
            chunked = self._framing is Framing.CHUNKED
            self._writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            await self._writer.drain()
            if self._fault.piece:
                await asyncio.sleep(0)

    async def finish(self) -> None:
        """Ends the body. Raises Ended where the connection goes with it."""
        if self._gzip and (tail := self._gzip.flush()):
            self._writer.write(b"%x\r\n%s\r\n" % (len(tail), tail) if self._framing is Framing.CHUNKED else tail)
        if self._framing is Framing.CHUNKED:
            self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        if self._framing is Framing.UNTIL_CLOSE or self._fault.closing in (Closing.ANNOUNCED, Closing.SILENT):
            self._writer.close()
            raise Ended


async def reset(writer: asyncio.StreamWriter) -> None:
    """The other side gets an error, not an end."""
    await asyncio.sleep(RESET_DELAY_S)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), max(size, 1)))
