"""A gateway process under requests that nobody should send: it answers all of them, and stays what it was."""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fakes.engine.handle import Engine
from tests.serve_app.asking import CHAT, hear
from tests.serve_app.conftest import UNRESENTFUL, Endpoint, fleet_spec
from tests.serve_app.faults.mutation import BROKEN_HEADS, Mutant, mutant

ROOT = Path(__file__).resolve().parents[3]
REQUESTS = 52_000
CONNECTIONS = 16
PIPELINED = 25
"""Less than a client may have waiting."""
HANG_S = 60
WARM_UP = 0.3
"""Share of the requests after which memory has settled."""
GROWTH_BYTES = 8 * 2**20


@pytest.fixture
def gateway(three_engines: list[Engine], engines: list[Engine], tmp_path: Path) -> Iterator[tuple[Endpoint, int]]:
    """In a process of its own, with its id."""
    for engine in engines:
        engine.behave(max_num_seqs=64, max_model_len=128)
    spec = fleet_spec(three_engines, max_body_bytes=2**16, **UNRESENTFUL)
    file = tmp_path / "fleet.json"
    file.write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "tests.serve_app.faults.process", str(file)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Endpoint(spec.ingress.port, 0), process.pid
        process.communicate(timeout=60)


class Fuzzer:
    """Many connections, each with many requests at once."""

    def __init__(self, port: int, process: psutil.Process):
        self.statuses: Counter[int] = Counter()
        self.settled_bytes = 0
        self._port = port
        self._process = process
        self._left = REQUESTS

    async def run(self) -> None:
        await asyncio.gather(*(self._client(random.Random(seed)) for seed in range(CONNECTIONS)))

    async def _client(self, rng: random.Random) -> None:
        while self._left > 0:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            while self._left > 0 and not reader.at_eof():
                self._left -= PIPELINED
                async with asyncio.timeout(HANG_S):
                    await self._batch(rng, reader, writer)
                if not self.settled_bytes and self._left < REQUESTS * (1 - WARM_UP):
                    self.settled_bytes = self._process.memory_info().rss
                if rng.random() < 0.05:
                    await self._break(rng, reader, writer)
                    break
            writer.close()

    async def _batch(self, rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mutants = [mutant(rng) for _ in range(PIPELINED)]
        writer.write(b"".join(each.raw for each in mutants))
        for each in mutants:
            status, closes = await self._answer(each, reader)
            self.statuses[status] += 1
            if closes:
                self._left += PIPELINED - mutants.index(each) - 1
                reader.feed_eof()
                return

    async def _break(self, rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What is not even HTTP is refused, or ends the connection."""
        writer.write(rng.choice(BROKEN_HEADS))
        async with asyncio.timeout(HANG_S):
            answer = await reader.read()
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501")), answer

    async def _answer(self, to: Mutant, reader: asyncio.StreamReader) -> tuple[int, bool]:
        """Its status, and whether the connection ends with it."""
        head = b"HTTP/1.1 100"
        while head.startswith(b"HTTP/1.1 100"):
            head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:-2])
        status = int(lines[0].split(" ")[1])
        if to.method == "HEAD" or status == 204:
            pass
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        else:
            body = await reader.readexactly(int(headers["content-length"]))
            assert status < 500 or b"no_site" in body, (to.raw, body)
        return status, headers.get("connection") == "close"


@pytest.mark.timeout(400)
def test_no_request_breaks_the_gateway(gateway: tuple[Endpoint, int]) -> None:
    endpoint, pid = gateway
    process = psutil.Process(pid)
    undisturbed = hear(endpoint, CHAT)
    fuzzer = Fuzzer(endpoint.port, process)
    asyncio.run(fuzzer.run())
    answered = fuzzer.statuses
    assert answered.total() >= 50_000
    assert not [status for status in answered if status >= 500 and status != 503], answered
    assert answered[200] > answered.total() / 50, "most requests would be refused at the door otherwise"
    assert process.memory_info().rss - fuzzer.settled_bytes < GROWTH_BYTES
    assert hear(endpoint, CHAT) == undisturbed
    assert process.is_running()
