"""An OpenAI-compatible target gets the client's own bytes, under its own name of the model."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.relay.hosted.openai import rename_model
from serve_app.relay.hosted.untranslatable import Untranslatable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("model"), inner, max_size=4),
    max_leaves=20,
)


def test_not_a_byte_changes_but_the_name() -> None:
    body = (
        '{ "messages" : [ {"model": "chat", "content": "\\"model\\": \\u00e9 é 1.0"} ],\n\t"model":"chat" , "x":1.50}'
    )
    assert rename_model(body.encode(), "org/big").decode() == body.replace('"model":"chat" ,', '"model":"org/big" ,')


@pytest.mark.parametrize("body", ['{"model":"chat"}', '{"a":{"model":1},"model":null,"b":["model"]}'])
def test_a_name_may_hold_anything(body: str) -> None:
    name = 'quo"te\\ \u00e9'
    assert json.loads(rename_model(body.encode(), name)) == json.loads(body) | {"model": name}


def test_of_a_name_given_twice_none_is_left() -> None:
    assert rename_model(b'{"model":"a","model":"b"}', "n") == b'{"model":"n","model":"n"}'


@given(st.dictionaries(st.text(), JSON, max_size=6), st.text(), st.sampled_from([None, 1]), st.booleans())
def test_only_the_outermost_model_is_renamed(
    fields: dict[str, Any], name: str, indent: int | None, ascii_only: bool
) -> None:
    body = json.dumps(fields | {"model": "chat"}, indent=indent, ensure_ascii=ascii_only)
    try:
        raw = body.encode()
    except UnicodeEncodeError:
        return
    assert json.loads(rename_model(raw, name)) == fields | {"model": name}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'"model"',
        b'{"model"',
        b'{"model":',
        b'{"model" "chat"}',
        b'{"other":1}',
        b'{"model":"\xff"}',
        b'{"a":' + b"[" * 100_000,
        b"--boundary\r\ncontent-disposition: form-data; name=model\r\n\r\nwhisper\r\n",
    ],
)
def test_what_has_no_model_is_refused(body: bytes) -> None:
    with pytest.raises(Untranslatable, match="not a JSON object"):
        rename_model(body, "n")
