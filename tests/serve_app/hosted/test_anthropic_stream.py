"""Anthropic's events, however they are cut into pieces, are one stream of OpenAI's chunks, and end as they ended."""

import json
from itertools import pairwise
from typing import Any

import pytest
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk
from pydantic import TypeAdapter

from serve_app.relay.hosted.anthropic import StreamTranslator
from serve_app.relay.hosted.anthropic.stream import MAX_EVENT_BYTES
from tests.serve_app.hosted.messages import PING, START, STOP, WHOLE, delta, event, text, tool

ANTHROPIC: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def translated(stream: bytes, include_usage: bool = False) -> list[Any]:
    """The data of each event: a chunk, an error, or the text that ends a stream."""
    return read(StreamTranslator("chat", include_usage).feed(stream))


def read(told: bytes) -> list[Any]:
    events = told.split(b"\n\n")
    assert events.pop() == b""
    return [_data(each) for each in events]


def _data(each: bytes) -> Any:
    assert each.startswith(b"data: ")
    data = each.removeprefix(b"data: ")
    if data == b"[DONE]":
        return "[DONE]"
    return json.loads(data) if data.startswith(b'{"error"') else ChatCompletionChunk.model_validate_json(data)


def contents(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_the_fixtures_are_what_anthropics_own_client_takes() -> None:
    stream = WHOLE.replace(PING, b"") + text(0, "x") + tool(1, "f", "{}")
    for each in stream.decode().strip().split("\n\n"):
        ANTHROPIC.validate_json(each.partition("data: ")[2])


def test_text() -> None:
    *chunks, done = translated(WHOLE)
    assert done == "[DONE]"
    assert contents(chunks) == "Hello Zürich 🌍"
    assert {(chunk.id, chunk.model, chunk.object) for chunk in chunks} == {("msg_01", "chat", "chat.completion.chunk")}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, None, "stop"]
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)


def test_usage_comes_last_and_only_when_it_was_asked_for() -> None:
    *chunks, last, done = translated(WHOLE, include_usage=True)
    assert done == "[DONE]"
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks)
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (162, 7, 169)
    assert last.usage.prompt_tokens_details.cached_tokens == 50


def test_the_last_of_several_counts_is_the_one() -> None:
    stream = START + delta("", output_tokens=3) + delta("max_tokens", output_tokens=9, input_tokens=20) + STOP
    *_, finish, last, _ = translated(stream, include_usage=True)
    assert finish.choices[0].finish_reason == "length"
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (170, 9)


def test_tool_calls() -> None:
    stream = (
        START
        + text(0, "Let me see.")
        + tool(1, "weather", "", '{"city": ', '"Zürich"}')
        + tool(2, "now", "")
        + delta("tool_use", output_tokens=7)
        + STOP
    )
    *chunks, _ = translated(stream)
    calls: dict[int, dict[str, str]] = {}
    for chunk in chunks:
        for call in chunk.choices[0].delta.tool_calls or ():
            if call.id:
                calls[call.index] = {"id": call.id, "name": call.function.name, "arguments": ""}
            calls[call.index]["arguments"] += call.function.arguments
    assert calls == {
        0: {"id": "toolu_1", "name": "weather", "arguments": '{"city": "Zürich"}'},
        1: {"id": "toolu_2", "name": "now", "arguments": "{}"},
    }
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@given(st.lists(st.integers(0, len(WHOLE))), st.booleans())
def test_pieces_make_no_difference(cuts: list[int], carriage_returns: bool) -> None:
    stream = WHOLE.replace(b"\n", b"\r\n") if carriage_returns else WHOLE
    bounds = [0, *sorted(cuts), len(stream)]
    translator = StreamTranslator("chat", include_usage=True)
    told = b"".join(translator.feed(stream[start:end]) for start, end in pairwise(bounds))
    *chunks, done = read(told)
    assert (contents(chunks), done, len(chunks)) == ("Hello Zürich 🌍", "[DONE]", 6)


def test_an_event_that_is_not_whole_yet_says_nothing() -> None:
    translator = StreamTranslator("chat", include_usage=False)
    assert translator.feed(START[:-1]) == b""
    assert len(read(translator.feed(START[-1:]))) == 1


@pytest.mark.parametrize(
    "quiet",
    [
        PING,
        b": a comment\n\n",
        b"event: ping\n\n",
        b"\n\n",
        event("news_of_2030", delta=5, message="x", index="y"),
        event("content_block_start", index=5, content_block={"type": "thinking", "thinking": "", "signature": ""}),
        event("content_block_delta", index=5, delta={"type": "thinking_delta", "thinking": "Hm."}),
        event("content_block_delta", index=5, delta={"type": "signature_delta", "signature": "s"}),
        event("content_block_delta", index=0, delta={"type": "citations_delta", "citation": {"type": "page"}}),
        event("content_block_delta", index=9, delta={"type": "input_json_delta", "partial_json": "{}"}),
        event("content_block_stop", index=9),
    ],
)
def test_what_has_no_counterpart_passes_in_silence(quiet: bytes) -> None:
    translator = StreamTranslator("chat", include_usage=False)
    translator.feed(START)
    assert translator.feed(quiet) == b""
    assert translator.feed(STOP).endswith(b"data: [DONE]\n\n")


def test_an_error_ends_the_stream_as_an_error() -> None:
    failure = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    *chunks, error = translated(START + text(0, "Hel") + failure + text(1, "lo") + STOP)
    assert contents(chunks) == "Hel"
    assert error == {
        "error": {"message": "Overloaded", "type": "server_error", "param": None, "code": "overloaded_error"}
    }


@pytest.mark.parametrize(
    "malformed",
    [
        b"data: {\n\n",
        b"data: 3\n\n",
        b"data: {}\n\n",
        b"data: \xff\n\n",
        b"<html>\n\n",
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\xff"}}\n\n',
        b'data: {"type":"content_block_delta","index":0,"delta":null}\n\n',
        b'data: {"type":"message_start","message":{}}\n\n',
        b'data: {"type":"ping","x":' + b"[" * 100_000 + b"\n\n",
        b"data: " + b"x" * (MAX_EVENT_BYTES + 1),
    ],
)
def test_a_malformed_event_ends_the_stream_as_an_error(malformed: bytes) -> None:
    *chunks, error = translated(START + text(0, "Hel") + malformed + text(1, "lo") + STOP)
    assert contents(chunks) == "Hel"
    assert error["error"]["message"] == "The hosted target sent a malformed event."


@given(st.lists(st.sampled_from(WHOLE.split(b"\n")) | st.binary(max_size=20)))
def test_nothing_that_comes_raises(lines: list[bytes]) -> None:
    translator = StreamTranslator("chat", include_usage=True)
    told = b"".join(translator.feed(line + b"\n") for line in lines)
    events = read(told)
    ends = [each for each in events if each == "[DONE]" or isinstance(each, dict)]
    assert ends in ([], events[-1:])


def test_what_comes_behind_the_end_is_dropped() -> None:
    translator = StreamTranslator("chat", include_usage=False)
    translator.feed(WHOLE)
    assert translator.feed(WHOLE) == b""
