"""The fields that we read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.spec import Task
from serve_app.errors import BadRequest
from serve_app.openai import PROMPTS, read_facts
from serve_app.routing.facts import Facts

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        (Task.CHAT, {"messages": [{"role": "user", "content": "x"}]}),
        (Task.COMPLETIONS, {"prompt": "x"}),
        (Task.COMPLETIONS, {"prompt": [1, 2]}),
        (Task.EMBEDDINGS, {"input": ["x"]}),
    ],
)
@pytest.mark.parametrize("stream", [None, False, True])
def test_facts(task: Task, fields: dict[str, Any], stream: bool | None) -> None:
    body = json.dumps({"model": "m", "stream": stream, "unknown": {"a": 1}, **fields}).encode()
    facts = read_facts(task, body, "east")
    assert (facts.model, facts.task, facts.stream) == ("m", task, bool(stream))
    assert (facts.body_bytes, facts.only_site) == (len(body), "east")


@given(task=st.sampled_from(Task), fields=st.dictionaries(st.sampled_from(("model", "stream", "prompt")), JSON_VALUES))
def test_any_json_is_read_or_refused_with_the_field(task: Task, fields: dict[str, Any]) -> None:
    match read_or_refuse(task, json.dumps(fields).encode()):
        case BadRequest(param=param):
            assert param in ("model", "stream", PROMPTS[task][0])
        case Facts(model=model, stream=stream):
            assert (model, stream) == (fields["model"], bool(fields.get("stream")))


def read_or_refuse(task: Task, body: bytes) -> Facts | BadRequest:
    try:
        return read_facts(task, body, None)
    except BadRequest as error:
        return error


@given(st.binary())
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_facts(Task.CHAT, body, None)
