"""A chat completion request says the same to Anthropic, or is refused by the field that cannot be said."""

import json
from typing import Any

import pytest
from anthropic.types import MessageCreateParams
from pydantic import TypeAdapter

from serve_app.relay.hosted.anthropic import Untranslatable, to_messages
from serve_app.relay.hosted.anthropic.request import MAX_TOKENS

USER = {"role": "user", "content": "Hi"}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Of a city", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}},
    {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}},
]
ANTHROPIC: TypeAdapter[Any] = TypeAdapter(MessageCreateParams)


def translated(**fields: Any) -> dict[str, Any]:
    body = {"model": "chat", "messages": [USER], **fields}
    told: dict[str, Any] = json.loads(to_messages(json.dumps(body).encode(), "claude-x"))
    ANTHROPIC.validate_python(told)  # as Anthropic's own client would send it
    return told


def test_the_least_there_can_be() -> None:
    assert translated() == {
        "model": "claude-x",
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }


def test_settings_keep_their_values_and_find_their_names() -> None:
    told = translated(max_tokens=5, temperature=0.5, top_p=0.9, top_k=3, stop="END", stream=True, seed=7, n=1)
    assert {field: told[field] for field in told if field not in ("model", "messages")} == {
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "stop_sequences": ["END"],
        "stream": True,
    }
    assert translated(stop=["a", "b"], max_completion_tokens=9, max_tokens=5)["stop_sequences"] == ["a", "b"]
    assert translated(max_completion_tokens=9, max_tokens=5)["max_tokens"] == 9
    assert translated(temperature=0)["temperature"] == 0


def test_fields_that_ask_for_nothing_are_left_out() -> None:
    nothing = {
        "n": 1,
        "logprobs": False,
        "top_logprobs": 0,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "stop": None,
        "tools": None,
        "tool_choice": None,
        "guided_json": None,
        "stream_options": {"include_usage": True},
        "user": "someone",
    }
    assert translated(**nothing) == translated()


def test_system_messages_become_the_system_prompt_in_their_order() -> None:
    told = translated(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            USER,
        ]
    )
    assert told["system"] == [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    assert [turn["role"] for turn in told["messages"]] == ["user"]


def test_text_and_images() -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "text", "text": ""},
    ]
    assert translated(messages=[{"role": "user", "content": parts}])["messages"][0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
    ]


def test_tools_their_calls_and_their_results() -> None:
    told = translated(
        tools=TOOLS,
        messages=[
            USER,
            {"role": "assistant", "content": None, "tool_calls": CALLS},
            {"role": "tool", "tool_call_id": "call_1", "content": "12 °C"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "noon"}]},
            {"role": "user", "content": "And tomorrow?"},
        ],
    )
    assert told["tools"] == [
        {"name": "weather", "description": "Of a city", "input_schema": WEATHER},
        {"name": "now", "input_schema": {"type": "object", "properties": {}}},
    ]
    _, calls, results = told["messages"]
    assert calls == {
        "role": "assistant",
        "content": [
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Zürich"}},
            {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
        ],
    }
    assert results == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "12 °C"}]},
            {"type": "tool_result", "tool_use_id": "call_2", "content": [{"type": "text", "text": "noon"}]},
            {"type": "text", "text": "And tomorrow?"},
        ],
    }


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "now"}}}, {"type": "tool", "name": "now"}),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"parallel_tool_calls": False, "tool_choice": "required"},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_tool_choice(fields: dict[str, Any], choice: dict[str, Any] | None) -> None:
    assert translated(tools=TOOLS, **fields).get("tool_choice") == choice


def said_by_user(content: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"n": 2}, "n "),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"temperature": 1.5}, "temperature is 1.5"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"guided_json": {}}, "guided_json"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, r"tools\[0\]"),
        ({"messages": [USER, {"role": "assistant", "content": "Hel"}]}, "messages ends with one of the assistant's"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, r"messages\[0\].role 'function'"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}, USER]}, r"messages\[0\].function_call"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}, USER]}, r"messages\[0\].audio"),
        ({"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "system"),
        (said_by_user([{"type": "input_audio", "input_audio": {}}]), r"content\[0\] of type 'input_audio'"),
        (said_by_user([{"type": "image_url"}]), r"content\[0\] of type 'image_url'"),
        (said_by_user([{"type": "image_url", "image_url": {"url": "data:image/png,x"}}]), "data URL"),
        (said_by_user(5), r"\$\.messages\[0\]\.content"),
        ({"messages": "Hi"}, r"\$\.messages"),
        ({"messages": [5]}, r"\$\.messages\[0\]"),
        ({"max_tokens": "many"}, r"\$\.max_tokens"),
        (
            {
                "messages": [
                    USER,
                    {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[1]"}}]},
                ]
            },
            r"messages\[1\].tool_calls\[0\].function.arguments",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(Untranslatable, match=named):
        translated(**fields)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"messages":', b'{"messages":[],"user":"\xff"}', b'{"messages":[],"x":' + b"[" * 100_000]
)
def test_what_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(Untranslatable, match="cannot be read"):
        to_messages(body, "claude-x")
