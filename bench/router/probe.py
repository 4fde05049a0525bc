"""Whether a contender answers, and whether it answers what the engine said."""

import gzip
import json
import socket
import time
from http.client import HTTPException, HTTPResponse

from bench.router import requests
from bench.router.requests import Target

TIMEOUT_S = 10
TOKENS = 11
PACE = 50


class WrongAnswer(Exception):
    """A contender answers, but not with what the engine said: its figures would mean nothing."""


def answers(target: Target) -> bool:
    try:
        status, _ = _exchange(target, next(requests.short(target)))
    except (OSError, HTTPException):
        return False
    return status == 200


def check(target: Target, direct: Target) -> None:
    """One whole answer, and one stream to its end, at its pace. Raises WrongAnswer."""
    status, body = _exchange(target, next(requests.short(target)))
    if status != 200 or "usage" not in json.loads(body):
        raise WrongAnswer(f"status {status}: {body[:200]!r}")
    started = time.perf_counter()
    status, body = _exchange(target, requests.stream(target, TOKENS, PACE, usage=True))
    _, said = _exchange(direct, requests.stream(direct, TOKENS, PACE, usage=True))
    if status != 200 or text_of(body) != text_of(said):
        raise WrongAnswer(f"a stream with status {status} and another text: {body[:400]!r}")
    if time.perf_counter() - started < (TOKENS - 1) / PACE / 2:
        raise WrongAnswer("a stream came too early: its pace was not passed on to the engine")


def text_of(stream: bytes) -> str:
    """What its events say together, if it has an end."""
    *events, done = [line.removeprefix(b"data: ") for line in stream.split(b"\n") if line.startswith(b"data: ")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices) if done == b"[DONE]" else ""


def _exchange(target: Target, request: bytes) -> tuple[int, bytes]:
    with socket.create_connection((target.host, target.port), timeout=TIMEOUT_S) as sock:
        sock.sendall(request)
        with HTTPResponse(sock, method="POST") as response:
            response.begin()
            body = response.read()
            # As every client of the kind, ours takes gzip.
            return response.status, gzip.decompress(body) if response.headers["content-encoding"] == "gzip" else body
