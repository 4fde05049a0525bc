"""Asks an engine directly."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fakes.engine.handle import Engine

MESSAGES = [{"role": "user", "content": "Grüezi, tell me of the sea"}]
CHAT = "/models/chat/v1/chat/completions"
COMPLETIONS = "/models/chat/v1/completions"
LONG = {"temperature": 0, "max_tokens": 200, "ignore_eos": True}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """All whole ones but `[DONE]`."""
        lines = [event.removeprefix(b"data: ") for event in self.body.split(b"\n\n")[:-1]]
        return [json.loads(line) for line in lines if line != b"[DONE]"]

    @property
    def text(self) -> str:
        return "".join(self._of(choice) for event in self.events for choice in event["choices"])

    @property
    def tokens(self) -> list[int]:
        return [
            token for event in self.events for choice in event["choices"] for token in choice.get("token_ids") or ()
        ]

    @staticmethod
    def _of(choice: dict[str, Any]) -> str:
        return str(choice["text"] if "text" in choice else choice["delta"].get("content", ""))


@contextmanager
def connected(engine: Engine, timeout_s: float = 60) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=timeout_s)
    try:
        yield connection
    finally:
        connection.close()


def send(connection: http.client.HTTPConnection, path: str, **fields: Any) -> Answer:
    connection.request("POST", path, json.dumps(fields), {"authorization": "Bearer site-token"})
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def post(engine: Engine, path: str, **fields: Any) -> Answer:
    with connected(engine) as connection:
        return send(connection, path, **fields)


def chat(engine: Engine, **fields: Any) -> Answer:
    return post(engine, CHAT, **{"model": "chat", "messages": MESSAGES, **LONG, **fields})


def complete(engine: Engine, prompt: Any, **fields: Any) -> Answer:
    return post(engine, COMPLETIONS, **{"model": "chat", "prompt": prompt, **LONG, **fields})


def partial_chat(engine: Engine, **fields: Any) -> Answer:
    """What came of a stream that is broken off."""
    with pytest.raises(http.client.IncompleteRead) as caught:
        chat(engine, stream=True, **fields)
    return Answer(200, {}, caught.value.partial)


def state(engine: Engine) -> Any:
    with connected(engine) as connection:
        connection.request("GET", "/fleet/state", headers={"authorization": "Bearer site-token"})
        return json.loads(connection.getresponse().read())
