"""The requests that the load generator sends: bytes as the `openai` client would write them."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.router.wire import MODEL

Message = dict[str, str]

BODY_BYTES = 600
SHORT_PROMPTS = 256
CONVERSATIONS = 64
TURNS = 8
SERIAL = "#00000000"
"""Stands where a request's number comes, in prompts of which no two are the same."""

SYSTEM = (
    "You are the support assistant of a company that rents out telescopes. Answer briefly, in the language of the "
    "question, and name the page of the handbook that you rely on. "
)
HANDBOOK = SYSTEM + " ".join(f"Page {page}: clean the {page}th lens with care and note it." for page in range(1, 33))
TALK = "The picture is blurred at the edges when I look at the moon, and the screw beside the mirror turns freely. "


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. The key is the contender's own."""

    port: int
    key: str = "sk-none"
    host: str = "127.0.0.1"


def short(target: Target) -> Iterator[bytes]:
    """Requests with bodies of 600 bytes, of a few hundred prompts, endlessly."""
    prompts = [[_say("system", SYSTEM), _say("user", f"Question {n}: ")] for n in range(SHORT_PROMPTS)]
    return itertools.cycle([_request(target, _padded(messages)) for messages in prompts])


def conversations(target: Target) -> Iterator[bytes]:
    """Prompts of 2 to 6 KB, no two the same: turns of conversations that share a beginning."""
    templates = [
        _request(target, {"messages": _conversation(number, turns), "max_tokens": 64})
        for turns in range(TURNS)
        for number in range(CONVERSATIONS)
    ]
    halves = itertools.cycle([template.split(SERIAL.encode()) for template in templates])
    return (b"%b#%08d%b" % (before, number, after) for number, (before, after) in enumerate(halves))


def stream(target: Target, tokens: int, pace: int = 0, usage: bool = False) -> bytes:
    """A streamed answer of so many tokens; `pace` is per second, 0 as fast as it can be read."""
    fields: dict[str, Any] = {
        "messages": [_say("system", SYSTEM), _say("user", f"pace={pace} {TALK}")],
        "max_tokens": tokens,
        "stream": True,
    }
    return _request(target, fields | ({"stream_options": {"include_usage": True}} if usage else {}))


def _conversation(number: int, turns: int) -> list[Message]:
    past = itertools.chain.from_iterable(
        (_say("user", f"{number}.{turn}: {TALK}"), _say("assistant", f"Page {turn + 1}. {TALK * 2}"))
        for turn in range(turns)
    )
    return [_say("system", HANDBOOK), *past, _say("user", f"{SERIAL}: {TALK}")]


def _padded(messages: list[Message]) -> dict[str, Any]:
    """A body of exactly BODY_BYTES."""
    fields: dict[str, Any] = {"messages": messages, "max_tokens": 64, "temperature": 0.7}
    missing = BODY_BYTES - len(_body(fields))
    *before, last = messages
    return fields | {"messages": [*before, _say("user", last["content"] + (TALK * 8)[:missing])]}


def _request(target: Target, fields: dict[str, Any]) -> bytes:
    body = _body(fields)
    head = "\r\n".join(
        (
            "POST /v1/chat/completions HTTP/1.1",
            f"Host: {target.host}:{target.port}",
            "Accept-Encoding: gzip, deflate",
            "Connection: keep-alive",
            "Accept: application/json",
            "Content-Type: application/json",
            "User-Agent: OpenAI/Python 2.9.0",
            "X-Stainless-Lang: python",
            "X-Stainless-Package-Version: 2.9.0",
            "X-Stainless-OS: Linux",
            "X-Stainless-Arch: x64",
            "X-Stainless-Runtime: CPython",
            "X-Stainless-Runtime-Version: 3.11.7",
            f"Authorization: Bearer {target.key}",
            "X-Stainless-Async: false",
            "x-stainless-retry-count: 0",
            "x-stainless-read-timeout: 600",
            f"Content-Length: {len(body)}",
        )
    )
    return head.encode() + b"\r\n\r\n" + body


def _body(fields: dict[str, Any]) -> bytes:
    return json.dumps({"model": MODEL, **fields}, separators=(",", ":")).encode()


def _say(role: str, content: str) -> Message:
    return {"role": role, "content": content}
