"""Streamed chats, and the time to their first token."""

import http.client
import json
import statistics
import time
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlsplit

RETRY_S = 0.05
TIMEOUT_S = 60
TOKENS = 16
STEADY = 11
WORDS = "the fleet has many sites, and each of them has replicas; " * 4

_numbers = count()


class NoAnswer(Exception):
    """An engine that should answer does not."""


@dataclass(frozen=True, slots=True)
class Target:
    """`url` is what OpenAI's clients would be given, without /v1."""

    url: str
    model: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """Times in seconds since the epoch."""

    sent_at: float
    first_token_at: float

    @property
    def seconds(self) -> float:
        return self.first_token_at - self.sent_at


def ask_until_answered(target: Target, timeout_s: float) -> Asked:
    """The first request that is answered; those before it were refused at once. Raises NoAnswer."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return ask(target)
        except (NoAnswer, OSError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                raise NoAnswer(f"{target.url} does not answer after {timeout_s:.0f} s: {error}") from error
        time.sleep(RETRY_S)


def steady_s(target: Target) -> float:
    """Seconds to the first token of an engine that has answered before: the median of some requests, one by one."""
    return statistics.median(ask(target).seconds for _ in range(STEADY))


def ask(target: Target) -> Asked:
    """Each time another prompt of the same length. Raises NoAnswer, OSError, HTTPException."""
    address = urlsplit(target.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
    sent_at = time.time()
    try:
        connection.request("POST", f"{address.path}/v1/chat/completions", _body(target.model), _headers(target))
        answer = connection.getresponse()
        if answer.status != 200:
            raise NoAnswer(f"status {answer.status}: {answer.read(500)!r}")
        while line := answer.readline():
            if _has_token(line):
                first_token_at = time.time()
                answer.read()  # to its end, so that the next request finds an idle engine
                return Asked(sent_at, first_token_at)
    finally:
        connection.close()
    raise NoAnswer(f"{target.url} answers without a token")


def _has_token(line: bytes) -> bool:
    if not line.startswith(b"data: {"):
        return False
    choices = json.loads(line.removeprefix(b"data: ")).get("choices")
    return bool(choices and choices[0]["delta"].get("content"))


def _body(model: str) -> bytes:
    messages = [{"role": "user", "content": f"{next(_numbers):06d} {WORDS}"}]
    asked = {"model": model, "messages": messages, "stream": True, "max_tokens": TOKENS, "temperature": 0}
    return json.dumps(asked | {"ignore_eos": True}).encode()


def _headers(target: Target) -> dict[str, str]:
    token = {"authorization": f"Bearer {target.token}"} if target.token else {}
    return {"content-type": "application/json", **token}
