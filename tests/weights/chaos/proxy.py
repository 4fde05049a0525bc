"""A proxy in front of a store that damages what passes: it flips bits, drops connections, and lets answers overtake."""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CHUNK = 64 * 2**10
HEAD = 4 * 2**10
"""Of what comes at once, that is left alone: a head lies there, and a wrong bit in it is another fault."""


@dataclass
class Damage:
    """Shares of chunks that something happens to, and how often it did."""

    flip: float = 0.0
    drop: float = 0.0
    delay: float = 0.0
    max_delay_s: float = 0.2
    flipped: int = 0
    dropped: int = 0
    delayed: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(1))


@contextmanager
def damaging(endpoint: str, damage: Damage) -> Iterator[str]:
    """The endpoint to use instead of this one."""
    host, _, port = endpoint.removeprefix("http://").partition(":")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward = await asyncio.open_connection(host, int(port), limit=CHUNK)
        except OSError:
            writer.close()
            return
        ways = (_pass(reader, onward[1], damage), _pass(onward[0], writer, damage))
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for one in (writer, onward[1]):
                one.transport.abort()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0, limit=CHUNK)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, damage: Damage) -> None:
    rng = damage.rng
    try:
        while chunk := await reader.read(CHUNK):
            if rng.random() < damage.delay:
                damage.delayed += 1
                await asyncio.sleep(rng.random() * damage.max_delay_s)
            if rng.random() < damage.drop:
                damage.dropped += 1
                return
            if len(chunk) > HEAD and rng.random() < damage.flip:
                damage.flipped += 1
                at = rng.randrange(HEAD, len(chunk))
                chunk = chunk[:at] + bytes([chunk[at] ^ 1 << rng.randrange(8)]) + chunk[at + 1 :]
            writer.write(chunk)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        return
