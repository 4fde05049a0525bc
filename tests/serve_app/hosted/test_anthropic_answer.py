"""A message and an error, as a client of OpenAI's API reads them."""

import json
from typing import Any

import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion

from serve_app.relay.hosted.anthropic import Untranslatable, answer_to_openai, error_to_openai
from tests.serve_app.hosted.messages import message


def completion(content: list[dict[str, Any]], **fields: Any) -> ChatCompletion:
    told = message(content, **fields)
    Message.model_validate(told, strict=True)  # the fixture is what Anthropic's own client would take
    return ChatCompletion.model_validate_json(answer_to_openai(json.dumps(told).encode()), strict=True)


def test_text() -> None:
    told = completion([{"type": "text", "text": "Hello "}, {"type": "text", "text": "Zürich"}])
    (choice,) = told.choices
    assert (told.id, told.model, told.object) == ("msg_01", "claude-x", "chat.completion")
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hello Zürich", "stop")
    assert choice.message.tool_calls is None


def test_tool_calls() -> None:
    (choice,) = completion(
        [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}},
            {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
        ],
        stop_reason="tool_use",
    ).choices
    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")
    calls = [call for call in choice.message.tool_calls or () if call.type == "function"]
    assert [(call.id, call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("toolu_1", "weather", {"city": "Zürich"}),
        ("toolu_2", "now", {}),
    ]


def test_usage_counts_cached_tokens_as_part_of_the_prompt() -> None:
    usage = completion([]).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (162, 7, 169)
    assert usage.prompt_tokens_details.cached_tokens == 50


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
    ],
)
def test_why_it_ended(stop_reason: str, finish_reason: str) -> None:
    (choice,) = completion([{"type": "text", "text": "x"}], stop_reason=stop_reason).choices
    assert choice.finish_reason == finish_reason


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b'{"type":"error"}', b'{"id":"\xff"}', b"[" * 100_000])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(Untranslatable, match="not a message"):
        answer_to_openai(body)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [(400, "invalid_request_error", "invalid_request_error"), (529, "server_error", "overloaded_error")],
)
def test_an_error_keeps_its_message(status: int, kind: str, code: str) -> None:
    body = {"type": "error", "error": {"type": code, "message": "max_tokens: too many"}, "request_id": "req_1"}
    assert json.loads(error_to_openai(status, json.dumps(body).encode())) == {
        "error": {"message": "max_tokens: too many", "type": kind, "param": None, "code": code}
    }


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error":"x"}', b'{"error":{"type":1}}', b"\xff"])
def test_an_error_that_cannot_be_read_says_at_least_its_status(body: bytes) -> None:
    told = json.loads(error_to_openai(502, body))["error"]
    assert told["message"] == "The hosted target answered with status 502."
    assert told["type"] == "server_error"
