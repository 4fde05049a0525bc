"""The fields that we read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import BadRequest
from serve_app.form import form_fields
from serve_app.openai import ROUTES, Body, is_continuable, limit_of, prompt_of, read_body

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "x"}]
JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def read(path: str, **fields: Any) -> Body:
    return read_body(ROUTES[path], b"application/json", json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"messages": HELLO}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/completions", {"prompt": [1, 2]}),
        ("/v1/embeddings", {"input": ["x"]}),
        ("/v1/embeddings", {"messages": HELLO}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 5}),
        ("/rerank", {"query": "x", "documents": ["y"]}),
        ("/tokenize", {"prompt": "x"}),
    ],
)
@pytest.mark.parametrize("stream", [None, False, True])
def test_every_route_is_read(path: str, fields: dict[str, Any], stream: bool | None) -> None:
    body = read(path, model="m", stream=stream, unknown={"a": 1}, **fields)
    assert (body.model, bool(body.stream)) == ("m", bool(stream))


@given(
    path=st.sampled_from([path for path, route in ROUTES.items() if not route.form]),
    fields=st.dictionaries(st.sampled_from(("model", "stream", "prompt", "messages", "input", "n")), JSON_VALUES),
)
def test_any_json_is_read_or_refused_with_the_field(path: str, fields: dict[str, Any]) -> None:
    try:
        body = read(path, **fields)
    except BadRequest as error:
        assert error.param in ("model", "stream", *ROUTES[path].prompt)  # noqa: PT017 - either way is right
    else:
        assert (body.model, bool(body.stream)) == (fields["model"], bool(fields.get("stream")))
        assert is_continuable(path, body, json.dumps(fields).encode()) in (True, False)


@given(path=st.sampled_from(list(ROUTES)), content_type=st.binary(max_size=40), body=st.binary())
def test_any_bytes_are_refused(path: str, content_type: bytes, body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_body(ROUTES[path], content_type, body)


def test_deep_nesting_is_refused_or_passed_and_never_an_accident() -> None:
    body = b'{"model":"m","messages":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}"
    with pytest.raises(BadRequest):
        read_body(ROUTES[CHAT], b"application/json", body)


def test_the_last_of_two_models_counts_as_it_does_in_the_engine() -> None:
    body = b'{"model":"a","messages":[],"model":"b"}'
    assert read_body(ROUTES[CHAT], b"", body).model == "b" == json.loads(body)["model"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stream": True}, True),
        ({}, False),
        ({"stream": True, "n": 1}, True),
        ({"stream": True, "n": 2}, False),
        ({"stream": True, "tools": [{"type": "function"}]}, False),
        ({"stream": True, "logprobs": True}, False),
        ({"stream": True, "n": "two"}, False),
        ({"stream": True, "presence_penalty": 0}, True),
    ],
)
def test_which_streams_could_go_on_elsewhere(fields: Any, expected: bool) -> None:
    whole = {"model": "m", "messages": HELLO, **fields}
    assert is_continuable(CHAT, read(CHAT, **whole), json.dumps(whole).encode()) is expected


def test_streams_of_other_routes_could_not() -> None:
    whole = {"model": "m", "input": "x", "stream": True}
    assert not is_continuable("/v1/responses", read("/v1/responses", **whole), json.dumps(whole).encode())


def test_a_conversations_next_turn_begins_as_the_last_one() -> None:
    first = prompt_of(ROUTES[CHAT], read(CHAT, model="m", messages=HELLO))
    more = [*HELLO, {"role": "assistant", "content": "y"}]
    assert prompt_of(ROUTES[CHAT], read(CHAT, model="m", messages=more)).startswith(first)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 3}, 3),
        ({"max_tokens": "x"}, None),
    ],
)
def test_the_limit_of_an_answer(fields: Any, limit: int | None) -> None:
    assert limit_of(read(CHAT, model="m", messages=HELLO, **fields)) == limit


# Forms

TYPE = b"multipart/form-data; boundary=xyz"


def part(name: str, value: bytes, filename: str = "") -> bytes:
    named = f'name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return b"--xyz\r\ncontent-disposition: form-data; %b\r\n\r\n%b\r\n" % (named.encode(), value)


def test_a_form_is_read_and_its_file_is_not_taken_for_a_field() -> None:
    body = part("file", b"RIFF", "model") + part("model", b"whisper") + part("stream", b"true") + b"--xyz--\r\n"
    read_form = read_body(ROUTES["/v1/audio/transcriptions"], TYPE, body)
    assert (read_form.model, read_form.stream) == ("whisper", True)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (b"application/json", b"{}"),
        (b"multipart/form-data", part("model", b"m") + b"--xyz--\r\n"),
        (TYPE, b"--abc\r\n"),
        (TYPE, part("file", b"x", "f") + b"--xyz--\r\n"),
        (TYPE, part("model", b"a") + part("model", b"b") + b"--xyz--\r\n"),
    ],
)
def test_forms_that_can_not_be_read_are_refused(content_type: bytes, body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_body(ROUTES["/v1/audio/transcriptions"], content_type, body)


def test_only_named_fields_are_kept() -> None:
    body = part("prompt", b"x" * 10) + part("model", b"m") + b"--xyz--\r\n"
    assert form_fields(TYPE, body, ("model",)) == {"model": "m"}
