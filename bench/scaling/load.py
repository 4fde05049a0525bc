"""Streams against an endpoint, so many at once, one after the other for ever."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

TOKENS = 100
TIMEOUT_S = 600.0


@dataclass
class Tally:
    """What clients saw."""

    answers: int = 0
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def streams(endpoint: str, key: str, model: str, count: int, tally: Tally) -> Iterator[None]:
    """`count` clients, which all ask when this yields; each ends its last stream before this returns."""
    stop, together = threading.Event(), threading.Barrier(count + 1)
    asked = (endpoint, key, model, together, stop, tally)
    threads = [threading.Thread(target=_stream_until, args=asked) for _ in range(count)]
    for thread in threads:
        thread.start()
    together.wait()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT_S)


def first_token_s(endpoint: str, key: str, model: str) -> float:
    """Seconds until one stream begins, however long that takes. Raises httpx.HTTPError."""
    began = time.monotonic()
    with httpx.Client(timeout=TIMEOUT_S) as client, _ask(client, endpoint, key, model) as answer:
        answer.raise_for_status()
        next(answer.iter_bytes())
        return time.monotonic() - began


def _stream_until(
    endpoint: str, key: str, model: str, together: threading.Barrier, stop: threading.Event, tally: Tally
) -> None:
    with httpx.Client(timeout=TIMEOUT_S) as client:
        together.wait()
        while not stop.is_set():
            failure = _failure(client, endpoint, key, model)
            with tally.lock:
                if failure is None:
                    tally.answers += 1
                else:
                    tally.failures.append(failure)
            stop.wait(0.05)


def _failure(client: httpx.Client, endpoint: str, key: str, model: str) -> str | None:
    try:
        with _ask(client, endpoint, key, model) as answer:
            text = answer.read().decode()
            whole = answer.status_code == 200 and text.endswith("data: [DONE]\n\n")
            return None if whole else f"status {answer.status_code}: {text[-200:]}"
    except httpx.HTTPError as error:
        return repr(error)


@contextmanager
def _ask(client: httpx.Client, endpoint: str, key: str, model: str) -> Iterator[httpx.Response]:
    body = {"model": model, "prompt": "A site is", "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    headers = {"authorization": f"Bearer {key}"}
    with client.stream("POST", f"{endpoint}/v1/completions", json=body, headers=headers) as answer:
        yield answer
