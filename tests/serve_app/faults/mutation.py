"""Requests that no client should send: valid ones, changed at random."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serve_app.openai import ROUTES
from tests.serve_app.conftest import KEY

SEA = [{"role": "user", "content": "tell me of the sea"}]
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
TOOL = {"type": "function", "function": {"name": "f"}}
VALID: tuple[tuple[str, dict[str, Any]], ...] = (
    (CHAT, {"model": "chat", "messages": SEA, "max_tokens": 2}),
    (CHAT, {"model": "chat", "messages": SEA, "max_tokens": 2, "stream": True}),
    (CHAT, {"model": "chat", "messages": SEA, "stream": True, "stream_options": {"include_usage": True}, "stop": "x"}),
    (CHAT, {"model": "chat", "messages": SEA, "max_tokens": 2, "tools": [TOOL], "stream": True}),
    (CHAT, {"model": "lonely", "messages": SEA, "response_format": {"type": "json_object"}}),
    (COMPLETIONS, {"model": "chat", "prompt": "the sea", "max_tokens": 2, "temperature": 0, "stop": ["x", "yy"]}),
    (COMPLETIONS, {"model": "chat", "prompt": [[1, 2], [3]], "max_tokens": 1, "n": 2, "stream": True}),
    ("/v1/messages", {"model": "chat", "messages": SEA, "max_tokens": 2, "stream": True}),
    ("/v1/responses", {"model": "chat", "input": "the sea", "max_output_tokens": 2, "instructions": "sing"}),
    (EMBEDDINGS, {"model": "embed", "input": ["the sea", "the ship"], "encoding_format": "float"}),
    ("/v1/rerank", {"model": "embed", "query": "sea", "documents": ["the sea", "the ship"], "top_n": 1}),
    ("/tokenize", {"model": "chat", "prompt": "the sea"}),
    ("/detokenize", {"model": "chat", "tokens": [300, 301]}),
    ("/fleet/route", {"model": "chat", "messages": SEA}),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 2**31, -(2**63), 2**70, 1e308, "", "x", "\x00", "\ud800", "é🌊" * 50, [], {}),
    *([[]], [None], [{}], {"type": "text"}, {"a": {"b": [1, {"c": None}]}}, ["x"] * 100, "x" * 5000, "chat", "embed"),
)
PIECES = (
    *(b"null", b"NaN", b"1e999", b"-0", b'"\\ud800"', b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"[" * 600, b"]" * 600),
    *(
        b'{"a":' * 300,
        b'"model":"chat",',
        b'"stream":true,',
        b"\\",
        b'"',
        b"}",
        b"{",
        b",",
        b":",
        b"\r\n\r\n",
        b"9" * 400,
    ),
)
PATHS = (
    *(route for route in ROUTES if route != "/pooling"),  # which the engine does not have
    *("/v1/models", "/v1/none", "/healthz", "/metrics", "/%2e%2e/v1/models", "/v1/chat/completions?x=%00"),
)
METHODS = (*["POST"] * 30, "GET", "PUT", "HEAD", "OPTIONS")
HEADERS = (
    (
        "content-type",
        ("application/json", "text/plain", "multipart/form-data; boundary=x", "multipart/form-data", "\xff"),
    ),
    ("content-encoding", ("gzip", "identity", "")),
    ("accept", ("*/*", "text/event-stream", "")),
    ("x-request-id", ("a", "", "a b", "é", "x" * 200)),
    ("x-rayfleet-policy", ("cheapest", "none", "", "\x80")),
    ("x-rayfleet-site-only", ("east", "moon", "")),
    ("x-rayfleet-jurisdiction", ("ch", "us,ch", "", ",", "\xe9")),
    ("x-rayfleet-session", ("a", "", "x" * 1000)),
    ("x-api-key", ("x", "")),
    ("connection", ("keep-alive", "x-hop", "keep-alive, authorization")),
    ("te", ("trailers",)),
    ("expect", ("100-continue",)),
)
KEYS = (*[f"Bearer {KEY}"] * 40, "Bearer wrong", "Basic eA==", "Bearer", "\xff")
BROKEN_HEADS = (
    b"GARBAGE\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nbad header: x\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One request, as it goes over the wire."""

    raw: bytes
    method: str


def mutant(rng: random.Random) -> Mutant:
    """A request that is whole as HTTP, whatever it says."""
    method = rng.choice(METHODS)
    path, fields = rng.choice(VALID)
    body = _body(rng, dict(fields))
    lines = [
        f"{method} {path if rng.random() < 0.9 else rng.choice(PATHS)} HTTP/1.1",
        "host: x",
        f"authorization: {rng.choice(KEYS)}",
    ]
    for name, values in rng.sample(HEADERS, rng.choice((0, 0, 1, 1, 2, 4))):
        lines.append(f"{name}: {rng.choice(values)}")
    chunked = rng.random() < 0.2
    lines.append("transfer-encoding: chunked" if chunked else f"content-length: {len(body)}")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return Mutant(head + (_chunked(rng, body) if chunked else body), method)


def _body(rng: random.Random, fields: dict[str, Any]) -> bytes:
    for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
        _change_field(rng, fields)
    body = json.dumps(fields).encode()
    for _ in range(rng.choice((0, 0, 0, 0, 1, 2, 6))):
        body = rng.choice(CHANGES)(rng, body)
    return body


def _change_field(rng: random.Random, fields: dict[str, Any]) -> None:
    name = rng.choice(
        (*fields, "stream", "max_tokens", "n", "logprobs", "stop", "seed", "unknown", "return_token_ids", "")
    )
    if rng.random() < 0.2:
        fields.pop(name, None)
    else:
        fields[name] = rng.choice(VALUES)


def _flip(rng: random.Random, body: bytes) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]


def _insert(rng: random.Random, body: bytes) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + rng.choice(PIECES) + body[at:]


def _cut(rng: random.Random, body: bytes) -> bytes:
    start, end = sorted((rng.randrange(len(body) + 1), rng.randrange(len(body) + 1)))
    return body[:start] + body[end:]


def _repeat(rng: random.Random, body: bytes) -> bytes:
    start, end = sorted((rng.randrange(len(body) + 1), rng.randrange(len(body) + 1)))
    return body[:end] + body[start:]


CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (_flip, _insert, _cut, _repeat)


def _chunked(rng: random.Random, body: bytes) -> bytes:
    pieces = []
    while body:
        size = rng.randint(1, len(body))
        pieces.append(b"%x\r\n%b\r\n" % (size, body[:size]))
        body = body[size:]
    return b"".join([*pieces, b"0\r\n\r\n"])
