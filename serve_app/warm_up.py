"""A new engine's own first requests, so that no client's request is the first of its kind."""

import asyncio
import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from httpx2 import ASGITransport, AsyncClient, Response
from starlette.types import ASGIApp

from clusters.fields import Spec
from clusters.spec import Task

CONCURRENT = 8
"""Batches of more take the same code."""
LONG_TOKENS = 2048
ANSWER_TOKENS = 16
WORDS = "Say what a warm engine is, and why the first request should not be the one that finds out. "
SAMPLE_RATE = 16_000
UNUSUAL = {
    "stream": False,
    "top_p": 0.9,
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "answer",
            "schema": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
        },
    },
}
"""What loads the libraries of grammars, and the other sampler."""
ERROR_EVENT = '\ndata: {"error"'


class WarmUpFailed(Exception):
    """The engine does not answer what its clients will ask."""


class WarmUp(Spec):
    """What to ask: `tokens` are the most in one step, `sequences` the most in a batch. `deadline_s` is for it all."""

    model: str
    tasks: tuple[Task, ...]
    max_model_len: int
    sequences: int
    tokens: int
    deadline_s: float


@dataclass(frozen=True)
class Asked:
    """One request, sent as often as `times` says, all at once."""

    path: str
    body: dict[str, Any]
    times: int = 1
    files: dict[str, tuple[str, bytes, str]] = field(default_factory=dict)
    refusable: bool = False
    """Whether an engine that can't do it may say so, and is none the worse."""


async def warm_up(app: ASGIApp, plan: WarmUp) -> None:
    """By the way that clients' requests take. Raises WarmUpFailed."""
    transport = ASGITransport(app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://engine", timeout=None) as client:
        try:
            async with asyncio.timeout(plan.deadline_s):
                for asked in requests(plan):
                    answers = await asyncio.gather(*(_send(client, asked) for _ in range(asked.times)))
                    _require(plan, asked, answers)
        except TimeoutError as error:
            raise WarmUpFailed(
                f"{plan.model} has not answered its own first requests within {plan.deadline_s:g} s: the replica is "
                "not ready. Raise the placement's warm_up_s if the engine is that slow"
            ) from error


def requests(plan: WarmUp) -> Iterator[Asked]:
    """Short, long, and several at once, of the first task of the model that has any."""
    longest = max(1, min(plan.max_model_len - ANSWER_TOKENS, plan.tokens, LONG_TOKENS))
    # Ids, since only the engine knows how long a text is. The first hundreds are in every vocabulary.
    ids = [100 + number % 100 for number in range(longest)]
    times = min(CONCURRENT, plan.sequences)
    answer = {"model": plan.model, "max_tokens": min(ANSWER_TOKENS, plan.max_model_len // 2), "temperature": 0.7}
    if Task.CHAT in plan.tasks:
        chat = answer | {"messages": [{"role": "user", "content": WORDS}], "stream": True}
        yield Asked("/v1/chat/completions", chat)
        yield Asked("/v1/chat/completions", chat | {"ignore_eos": True}, times)
        yield Asked("/v1/chat/completions", chat | UNUSUAL, refusable=True)
    if Task.CHAT in plan.tasks or Task.COMPLETIONS in plan.tasks:
        yield Asked("/v1/completions", answer | {"prompt": ids})
    if Task.COMPLETIONS in plan.tasks:
        yield Asked("/v1/completions", answer | {"prompt": WORDS, "stream": True, "ignore_eos": True}, times)
        yield Asked("/v1/completions", answer | {"prompt": WORDS} | UNUSUAL, refusable=True)
    if Task.EMBEDDINGS in plan.tasks:
        yield Asked("/v1/embeddings", {"model": plan.model, "input": WORDS}, times)
        yield Asked("/v1/embeddings", {"model": plan.model, "input": ids})
    if Task.SCORE in plan.tasks:
        yield Asked("/v1/score", {"model": plan.model, "text_1": WORDS, "text_2": WORDS}, times)
    if Task.CLASSIFY in plan.tasks:
        yield Asked("/classify", {"model": plan.model, "input": WORDS}, times)
    if Task.TRANSCRIPTION in plan.tasks:
        spoken = {"file": ("silence.wav", _silence(), "audio/wav")}
        yield Asked("/v1/audio/transcriptions", {"model": plan.model}, times, spoken)


async def _send(client: AsyncClient, asked: Asked) -> Response:
    if asked.files:
        return await client.post(asked.path, data=asked.body, files=asked.files)
    return await client.post(asked.path, json=asked.body)


def _require(plan: WarmUp, asked: Asked, answers: list[Response]) -> None:
    for answer in answers:
        if asked.refusable and answer.is_client_error:
            continue
        # An error in a stream has a status of 200.
        if answer.status_code != 200 or ERROR_EVENT in f"\n{answer.text}":
            raise WarmUpFailed(
                f"{plan.model} answers its own first request to {asked.path} with {answer.status_code}: "
                f"{answer.text[:500]}. The replica is not ready: can the model do all of its `tasks`?"
            )


def _silence() -> bytes:
    """One second."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        sound.writeframes(bytes(2 * SAMPLE_RATE))
    return file.getvalue()
