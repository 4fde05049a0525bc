"""Asks a gateway, by OpenAI's client or without it, and keeps all that it says."""

import http.client
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.serve_app.conftest import KEY, Endpoint

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
SEA: Any = [{"role": "user", "content": "Grüezi, tell me of the sea"}]
GREEDY: dict[str, Any] = {"model": "chat", "temperature": 0, "max_tokens": 60}
FIELDS: dict[str, dict[str, Any]] = {
    CHAT: {**GREEDY, "messages": SEA},
    COMPLETIONS: {**GREEDY, "prompt": SEA[0]["content"]},
}


@dataclass(frozen=True, slots=True)
class Told:
    """What a whole stream said, its events joined."""

    text: str
    finish_reasons: tuple[str, ...]
    usages: tuple[tuple[int, int, int], ...]
    """Tokens of the prompt, of the answer, and of both."""
    token_ids: tuple[int, ...]
    answers: int
    """Different ids of the answer; one is right."""


def told(chunks: Iterable[Any]) -> Told:
    """Raises what OpenAI's client raises."""
    seen = list(chunks)
    choices = [choice for chunk in seen for choice in chunk.choices]
    return Told(
        text="".join((choice.text if hasattr(choice, "text") else choice.delta.content) or "" for choice in choices),
        finish_reasons=tuple(choice.finish_reason for choice in choices if choice.finish_reason),
        usages=tuple(
            (chunk.usage.prompt_tokens, chunk.usage.completion_tokens, chunk.usage.total_tokens)
            for chunk in seen
            if chunk.usage
        ),
        token_ids=tuple(token for choice in choices for token in getattr(choice, "token_ids", None) or ()),
        answers=len({chunk.id for chunk in seen}),
    )


def stream(endpoint: Endpoint, route: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """OpenAI's client's own stream."""
    client = endpoint.client()
    create = client.chat.completions.create if route == CHAT else client.completions.create
    asked = {**FIELDS[route], "stream": True, "stream_options": {"include_usage": True}, **fields}
    ours = {name: asked.pop(name) for name in list(asked) if name in OF_VLLM}
    return create(**asked, extra_body=ours, extra_headers=headers)


OF_VLLM = frozenset(("ignore_eos", "include_stop_str_in_output", "min_tokens", "return_token_ids"))
"""Fields that OpenAI's client doesn't know."""


def hear(endpoint: Endpoint, route: str, headers: dict[str, str] | None = None, **fields: Any) -> Told:
    """A stream to its end."""
    return told(stream(endpoint, route, headers, **fields))


@dataclass(frozen=True, slots=True)
class Answer:
    """As it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool
    """Whether it ended as HTTP demands; else the connection was broken off."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """Of a stream; `[DONE]` as it is."""
        lines = [event.removeprefix(b"data: ") for event in self.body.split(b"\n\n")[:-1]]
        return [line if line == b"[DONE]" else json.loads(line) for line in lines]

    @property
    def text(self) -> str:
        """What a stream's events say."""
        choices = [choice for event in self.events if event != b"[DONE]" for choice in event.get("choices", ())]
        return "".join(
            choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices
        )

    @property
    def error(self) -> Any:
        """The answer's own, or the last event's."""
        body = self.events[-1] if self.body.startswith(b"data: ") else self.json
        return body["error"]


def post(
    endpoint: Endpoint, route: str, *, key: str = KEY, headers: dict[str, str] | None = None, **fields: Any
) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=60)
    try:
        sent = {"authorization": f"Bearer {key}", "content-type": "application/json", **(headers or {})}
        connection.request("POST", route, json.dumps({**FIELDS.get(route, {}), **fields}), sent)
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        try:
            return Answer(response.status, named, response.read(), True)
        except http.client.IncompleteRead as broken:
            return Answer(response.status, named, broken.partial, False)
    finally:
        connection.close()


@contextmanager
def sent(endpoint: Endpoint, route: str, **fields: Any) -> Iterator[socket.socket]:
    """One request, of which the answer is left to the test."""
    body = json.dumps({**FIELDS.get(route, {}), **fields}).encode()
    head = f"POST {route} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=60) as client:
        client.sendall(head.encode() + body)
        yield client


def get(endpoint: Endpoint, path: str, key: str = KEY) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=60)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {key}"})
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read(), True)
    finally:
        connection.close()


def metric(endpoint: Endpoint, series: str) -> float:
    """The value of one series, 0 when there is none."""
    for line in get(endpoint, "/metrics").body.decode().splitlines():
        name, _, value = line.rpartition(" ")
        if name == series:
            return float(value)
    return 0.0
