"""Token counts are found in whatever an engine sends, and nothing else is taken for them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.metering.usage import LONGEST, Usage, last_usage

CHAT = {"prompt_tokens": 12, "total_tokens": 57, "completion_tokens": 45, "prompt_tokens_details": {"cached_tokens": 8}}
RESPONSES = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 8, "input_tokens_per_turn": [12]},
    "output_tokens": 45,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 57,
}
MESSAGES = {
    "input_tokens": 1,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 8,
    "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 45,
    "service_tier": "standard",
}
CHUNK = (
    'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"x"}}],"usage":null}\n\n'
)


@pytest.mark.parametrize("told", [CHAT, RESPONSES, MESSAGES], ids=["chat", "responses", "messages"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_whole_answer_in_every_shape(told: dict[str, Any], indent: int | None) -> None:
    body = json.dumps({"id": "x", "content": "…", "usage": told, "service_tier": "default"}, indent=indent)
    assert last_usage(body.encode()) == Usage(input=12, output=45, cached=8)


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens": 7, "total_tokens": 7}, Usage(7)),  # an embedding
        ({"prompt_tokens": 7, "completion_tokens": None, "prompt_tokens_details": None}, Usage(7)),
        ({"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": None}}, Usage(7)),
        ({"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(7, cached=7)),
        ({"input_tokens": 7, "output_tokens": 2, "cache_read_input_tokens": None}, Usage(7, 2)),
        ({"output_tokens": 2}, Usage(0, 2)),
        (None, None),
        ({}, None),
        ({"type": "object"}, None),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": "7"}, None),
        ({"prompt_tokens": 7, "prompt_tokens_details": 3}, None),
        (7, None),
        ("7", None),
    ],
)
def test_what_is_missing_counts_as_none(told: object, usage: Usage | None) -> None:
    assert last_usage(json.dumps({"id": "x", "usage": told}).encode()) == usage


def test_the_last_usage_of_a_stream() -> None:
    final = json.dumps({"id": "c", "choices": [], "usage": CHAT})
    tail = CHUNK[30:] + CHUNK * 20 + f"data: {final}\n\ndata: [DONE]\n\n"
    assert last_usage(tail.encode()) == Usage(12, 45, 8)
    assert last_usage((CHUNK * 20 + "data: [DONE]\n\n").encode()) is None


def test_a_running_count_gives_way_to_the_next_one() -> None:
    events = [f'data: {{"choices":[],"usage":{{"prompt_tokens":5,"completion_tokens":{n}}}}}\n\n' for n in range(9)]
    assert last_usage("".join(events).encode()) == Usage(5, 8)


def test_an_anthropic_stream_tells_both_counts_in_its_last_message_delta() -> None:
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": MESSAGES}
    tail = (
        f'event: message_delta\ndata: {json.dumps(delta)}\n\nevent: message_stop\ndata: {{"type":"message_stop"}}\n\n'
    )
    assert last_usage(tail.encode()) == Usage(12, 45, 8)


def test_what_a_model_writes_is_not_taken_for_usage() -> None:
    claim = '"usage":{"prompt_tokens":0,"completion_tokens":0}'
    body = {"usage": CHAT, "choices": [{"message": {"content": claim}, "note": '"usage'}]}
    assert last_usage(json.dumps(body).encode()) == Usage(12, 45, 8)


def test_a_schema_behind_the_usage_is_passed_over() -> None:
    body = {"usage": CHAT, "tools": [{"parameters": {"properties": {"usage": {"type": "object"}}}}]}
    assert last_usage(json.dumps(body).encode()) == Usage(12, 45, 8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'"usage"',
        b'"usage":',
        b'"usage":{',
        b'"usage":{"prompt_tokens":1',
        b'"usage" {"prompt_tokens":1}',
        b'"usage":{"prompt_tokens":1,}',
        b'"usage":{"prompt_tokens":99999999999999999999999}',
        b'\\"usage":{"prompt_tokens":1}',
        b'"usage":' + b"{" * 100_000,
        b'"usage":{"x":"' + b"x" * LONGEST + b'","prompt_tokens":1}',
        b'"usage":' * 20_000,
    ],
)
def test_what_cannot_be_read_is_none(data: bytes) -> None:
    assert last_usage(data) is None


@given(st.binary(max_size=50), st.text(max_size=50), st.binary(max_size=50))
def test_any_text_may_stand_around_it(before: bytes, content: str, after: bytes) -> None:
    body = json.dumps({"content": content, "usage": CHAT}).encode()
    assert last_usage(body) == Usage(12, 45, 8)
    assert last_usage(before + body) == Usage(12, 45, 8)
    last_usage(before + body[:-9] + after)
