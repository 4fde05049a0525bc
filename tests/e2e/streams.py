"""Many greedy streams at once through the real client, and what became of each."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from openai import AsyncOpenAI

from tests.e2e.conftest import Fleet

TOKENS = 320
"""Long enough that something is left to be disturbed."""
TIMEOUT_S = 300


@dataclass
class Stream:
    """One of them. Everything the client was given, and the error that it raised, if it did."""

    number: int
    site: str = ""
    """Where it began."""
    pieces: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    usages: list[tuple[int, int]] = field(default_factory=list)
    finish: str | None = None
    error: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def result(self) -> tuple[str, str | None, list[tuple[int, int]], int, str | None]:
        """What must not differ between two runs: text, end, usages, number of ids, error."""
        return self.text, self.finish, self.usages, len(self.ids), self.error


def differences(streams: list[Stream], expected: list[Stream]) -> dict[int, str]:
    """What became of each stream that is not as expected, in few words: 64 texts in full bury what went wrong."""
    return {
        stream.number: f"began at {stream.site or 'no site'}: {_difference(stream, other)}"
        for stream, other in zip(streams, expected, strict=True)
        if stream.result != other.result
    }


def _difference(stream: Stream, other: Stream) -> str:
    if stream.error is not None:
        return f"after {len(stream.pieces)} pieces, {stream.error}"
    if stream.text == other.text:
        return f"ended by {stream.finish} not {other.finish}, usages {stream.usages}, {len(stream.ids)} ids"
    pairs = enumerate(zip(stream.text, other.text, strict=False))
    same = next((n for n, (ours, theirs) in pairs if ours != theirs), min(len(stream.text), len(other.text)))
    begin = max(0, same - 20)
    return f"from character {same}, {stream.text[begin : same + 40]!r} not {other.text[begin : same + 40]!r}"


def run_streams(fleet: Fleet, count: int, disturb: Callable[[list[Stream]], None] | None = None) -> list[Stream]:
    """`disturb` runs beside them, in a thread of its own, and sees them grow."""
    return asyncio.run(_run(fleet, count, disturb))


async def _run(fleet: Fleet, count: int, disturb: Callable[[list[Stream]], None] | None) -> list[Stream]:
    streams = [Stream(number) for number in range(count)]
    async with _client(fleet) as client, asyncio.TaskGroup() as tasks:
        for stream in streams:
            tasks.create_task(_read(client, stream))
        if disturb is not None:
            tasks.create_task(asyncio.to_thread(disturb, streams))
    return streams


@asynccontextmanager
async def _client(fleet: Fleet) -> AsyncIterator[AsyncOpenAI]:
    key = fleet.local.api_key
    async with AsyncOpenAI(
        base_url=f"{fleet.local.endpoint}/v1", api_key=key, max_retries=0, timeout=TIMEOUT_S
    ) as client:
        yield client


async def _read(client: AsyncOpenAI, stream: Stream) -> None:
    try:
        answer = await client.chat.completions.with_raw_response.create(
            model="demo-chat",
            messages=[{"role": "user", "content": f"What is rayfleet? ({stream.number})"}],
            temperature=0,
            max_tokens=TOKENS,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
            extra_headers={"x-rayfleet-policy": "least_loaded"},
        )
        stream.site = answer.headers["x-rayfleet-site"]
        async for chunk in answer.parse():
            stream.ids.add(chunk.id)
            if chunk.usage is not None:
                stream.usages.append((chunk.usage.prompt_tokens, chunk.usage.completion_tokens))
            for choice in chunk.choices:
                stream.pieces.append(choice.delta.content or "")
                stream.finish = choice.finish_reason or stream.finish
    except Exception as error:  # noqa: BLE001 - whatever the client raises is what the test is about
        stream.error = repr(error)
