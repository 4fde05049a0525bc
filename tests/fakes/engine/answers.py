"""Answers before they meet the network: whole, or as events with the number of tokens that each carries."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.engine.asked import Asked, Refused
from tests.fakes.engine.generation import Step, generate

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"
CREATED = 1_700_000_000
"""One time for all answers: they are the same at every run."""


@dataclass(frozen=True, slots=True)
class Whole:
    """One body."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    tokens: int = 0
    steps: int = 1
    """Of the engine, each of which takes its time."""


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event, as it stands on the wire."""

    data: bytes
    tokens: int = 0
    step: bool = False
    """The engine takes a step for it."""
    last: bool = False
    """Says that the stream is complete."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """Events, and those that take the place of the rest where the engine fails."""

    events: Iterator[Event]
    failure: tuple[Event, ...]


def dump(value: Mapping[str, Any]) -> bytes:
    """As vLLM's servers write it: UTF-8 as it is, no spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def data(value: Mapping[str, Any], tokens: int = 0, *, step: bool = False) -> Event:
    return Event(b"data: " + dump(value) + b"\n\n", tokens, step)


def named(value: Mapping[str, Any], tokens: int = 0, *, step: bool = False, last: bool = False) -> Event:
    """An event whose name is its type."""
    return Event(f"event: {value['type']}\n".encode() + b"data: " + dump(value) + b"\n\n", tokens, step, last)


DONE = Event(b"data: [DONE]\n\n", last=True)


def error_body(message: str, status: int, kind: str, parameter: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": parameter, "code": status}}


def refusal(refused: Refused) -> Whole:
    return Whole(dump(error_body(str(refused), refused.status, refused.kind, refused.parameter)), refused.status)


BROKEN = error_body("Internal server error", 500, "InternalServerError")
FAILURE = (Event(b"data: " + json.dumps(BROKEN).encode() + b"\n\n"), DONE)


def steps(asked: Asked) -> Iterator[tuple[int, Step]]:
    """By choice, in turns, as the engine's batch makes them. A prompt's choices lie side by side."""
    running = {
        index: generate(prompt, asked.of_choice(index % asked.n))
        for index, prompt in enumerate(prompt for prompt in asked.prompts for _ in range(asked.n))
    }
    while running:
        for index, generation in list(running.items()):
            step = next(generation)
            if step.finish_reason is not None:
                del running[index]
            yield index, step


@dataclass(frozen=True, slots=True)
class Told:
    """One choice at its end."""

    tokens: tuple[int, ...]
    text: str
    finish_reason: str
    stop_reason: int | str | None


def tell(asked: Asked) -> list[Told]:
    """Every choice, whole."""
    told: dict[int, list[Step]] = {}
    for index, step in steps(asked):
        told.setdefault(index, []).append(step)
    return [
        Told(
            tuple(token for step in parts for token in step.tokens),
            "".join(step.text for step in parts),
            parts[-1].finish_reason or "stop",
            parts[-1].stop_reason,
        )
        for _, parts in sorted(told.items())
    ]


def usage(prompt: int, output: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}


def full_usage(prompt: int, output: int) -> dict[str, Any]:
    return {**usage(prompt, output), "prompt_tokens_details": None, "completion_tokens_details": None}
