"""A message as a chat completion, and an error as OpenAI's."""

import time
from typing import Any

import msgspec

from serve_app.relay.hosted.untranslatable import UNREADABLE, Untranslatable

FINISH_REASONS = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""All others are "stop"."""


class Usage(msgspec.Struct):
    """Anthropic counts what was read from a cache, or written to one, apart from the rest of the prompt."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Block(msgspec.Struct):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Message(msgspec.Struct):
    type: str
    id: str
    model: str
    content: list[_Block]
    stop_reason: str | None = None
    usage: Usage = msgspec.field(default_factory=Usage)


class _Error(msgspec.Struct):
    type: str
    message: str


class _Refusal(msgspec.Struct):
    error: _Error


def answer_to_openai(body: bytes) -> bytes:
    """A whole answer with status 200. Raises Untranslatable when it is not a message."""
    try:
        message = msgspec.json.decode(body, type=_Message)
    except UNREADABLE as error:
        raise Untranslatable(f"the answer is not a message: {error}") from error
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [_tool_call(block) for block in message.content if block.type == "tool_use"]
    told: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
    finish_reason = finish_reason_of(message.stop_reason)
    completion = {
        "id": message.id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": message.model,
        "choices": [
            {
                "index": 0,
                "message": told | ({"tool_calls": calls} if calls else {}),
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": usage_of(message.usage),
    }
    return msgspec.json.encode(completion)


def error_to_openai(status: int, body: bytes) -> bytes:
    """What a target said with a status of 400 or more."""
    try:
        error = msgspec.json.decode(body, type=_Refusal).error
    except UNREADABLE:
        error = _Error("api_error", f"The hosted target answered with status {status}.")
    kind = "invalid_request_error" if status < 429 else "server_error"
    return error_body(kind, error.type, error.message)


def error_body(kind: str, code: str, message: str) -> bytes:
    """OpenAI's shape."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def finish_reason_of(stop_reason: str | None) -> str:
    return FINISH_REASONS.get(stop_reason or "", "stop")


def usage_of(usage: Usage) -> dict[str, Any]:
    """OpenAI's."""
    cached = usage.cache_read_input_tokens or 0
    prompt = (usage.input_tokens or 0) + cached + (usage.cache_creation_input_tokens or 0)
    answer = usage.output_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _tool_call(block: _Block) -> dict[str, Any]:
    return {
        "id": block.id,
        "type": "function",
        "function": {"name": block.name, "arguments": bytes(block.input).decode()},
    }
