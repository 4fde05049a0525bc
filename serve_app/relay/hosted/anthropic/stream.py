"""A message's events as chunks of a chat completion."""

import re
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from serve_app.relay.hosted.anthropic.answer import Usage, error_body, finish_reason_of, usage_of
from serve_app.relay.hosted.untranslatable import UNREADABLE

MAX_EVENT_BYTES = 2**22
BLANK_LINE = re.compile(rb"\r?\n\r?\n")
DATA = re.compile(rb"^data: ?(.*?)\r?$", re.MULTILINE)
DONE = b"data: [DONE]\n\n"


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""


class _Delta(msgspec.Struct):
    """Of a block, or of the message."""

    type: str = ""
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    id: str
    usage: Usage = msgspec.field(default_factory=Usage)


class _Error(msgspec.Struct):
    type: str = "api_error"
    message: str = "The hosted target reported an error."


class _Event(msgspec.Struct):
    type: str
    message: _Message | None = None
    index: int = 0
    content_block: _Block = msgspec.field(default_factory=_Block)
    delta: _Delta = msgspec.field(default_factory=_Delta)
    usage: Usage = msgspec.field(default_factory=Usage)
    error: _Error = msgspec.field(default_factory=_Error)


class _Call(msgspec.Struct):
    """A tool call that is being written."""

    index: int
    has_arguments: bool = False


class _Kind(msgspec.Struct):
    type: str


TELLING = {
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "error",
}
"""The others are passed over, as Anthropic asks of clients: `ping`, and kinds that are new."""


class StreamTranslator:
    """One stream. It ends with [DONE], or with an error event; what the target sends behind either is dropped."""

    def __init__(self, model: str, include_usage: bool):
        self._model = model
        self._include_usage = include_usage
        self._created = int(time.time())
        self._id = ""
        self._rest = b""
        self._calls: dict[int, _Call] = {}
        self._stop_reason: str | None = None
        self._usage = Usage()
        self._over = False

    def feed(self, data: bytes) -> bytes:
        """Whole events of OpenAI's for the whole events of Anthropic's that there are now. Never raises."""
        *events, self._rest = BLANK_LINE.split(self._rest + data)
        if len(self._rest) > MAX_EVENT_BYTES:
            events, self._rest = [*events, self._rest], b""
        return b"".join(told for event in events for told in self._translate(event))

    def _translate(self, event: bytes) -> Iterator[bytes]:
        data = b"\n".join(DATA.findall(event))
        if self._over or not (data or _is_malformed(event)):
            return
        try:
            if msgspec.json.decode(data, type=_Kind).type in TELLING:
                yield from self._tell(msgspec.json.decode(data, type=_Event))
        except UNREADABLE:
            yield self._fail("api_error", "The hosted target sent a malformed event.")

    def _tell(self, event: _Event) -> Iterator[bytes]:
        match event.type:
            case "message_start" if event.message is not None:
                self._id = event.message.id
                self._count(event.message.usage)
                yield self._delta({"role": "assistant", "content": ""})
            case "content_block_start":
                yield from self._start_block(event.index, event.content_block)
            case "content_block_delta":
                yield from self._add(event.index, event.delta)
            case "content_block_stop":
                call = self._calls.get(event.index)
                if call is not None and not call.has_arguments:
                    yield self._delta(_arguments(call, "{}"))
            case "message_delta":
                self._stop_reason = event.delta.stop_reason or self._stop_reason
                self._count(event.usage)
            case "message_stop":
                yield from self._finish()
            case "error":
                yield self._fail(event.error.type, event.error.message)

    def _start_block(self, index: int, block: _Block) -> Iterator[bytes]:
        if block.type == "text" and block.text:
            yield self._delta({"content": block.text})
        elif block.type == "tool_use":
            call = self._calls[index] = _Call(len(self._calls))
            function = {"name": block.name, "arguments": ""}
            told = {"index": call.index, "id": block.id, "type": "function", "function": function}
            yield self._delta({"tool_calls": [told]})

    def _add(self, index: int, delta: _Delta) -> Iterator[bytes]:
        call = self._calls.get(index)
        if delta.type == "text_delta" and delta.text:
            yield self._delta({"content": delta.text})
        elif delta.type == "input_json_delta" and delta.partial_json and call is not None:
            call.has_arguments = True
            yield self._delta(_arguments(call, delta.partial_json))

    def _finish(self) -> Iterator[bytes]:
        self._over = True
        yield self._chunk([{"index": 0, "delta": {}, "finish_reason": finish_reason_of(self._stop_reason)}])
        if self._include_usage:
            yield self._chunk([], usage_of(self._usage))
        yield DONE

    def _fail(self, code: str, message: str) -> bytes:
        self._over = True
        return b"data: " + error_body("server_error", code, message) + b"\n\n"

    def _count(self, usage: Usage) -> None:
        """Counts are those of the whole message so far, and left out where they did not change."""
        for field in Usage.__struct_fields__:
            if (told := getattr(usage, field)) is not None:
                setattr(self._usage, field, told)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "finish_reason": None}])

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        chunk: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
        if self._include_usage:
            chunk["usage"] = usage
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _arguments(call: _Call, part: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": call.index, "function": {"arguments": part}}]}


def _is_malformed(event: bytes) -> bool:
    """Whether something without data is more than comments and an event's name."""
    return any(line and not line.startswith((b":", b"event:", b"id:", b"retry:")) for line in event.splitlines())
