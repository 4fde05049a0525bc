"""The request that resumes a cut stream, or the reason why there is none."""

import json
from array import array
from typing import Any

import pytest

from serve_app.relay.journal import Delivered
from serve_app.relay.resume import CHAT, COMPLETIONS, Resume, resume, why_not

HELLO = [{"role": "user", "content": "hello"}]


def delivered(**fields: Any) -> Delivered:
    given = {
        "id": "x",
        "prompt_ids": array("I", [1, 2, 3]),
        "ids": array("I", [7, 8]),
        "pieces": ["a", "b"],
        "events": 2,
    }
    return Delivered(**{**given, **fields})


def body_of(plan: Resume | str) -> dict[str, Any]:
    assert isinstance(plan, Resume), plan
    body: dict[str, Any] = json.loads(plan.body)
    return body


def by_tokens(route: str = CHAT, **fields: Any) -> dict[str, Any]:
    prompt = {"messages": HELLO} if route == CHAT else {"prompt": "hello"}
    plan = resume(route, {"model": "m", "stream": True, **prompt, **fields}, delivered(), 100, True)
    assert isinstance(plan, Resume)
    assert (plan.mode, plan.route) == ("tokens", COMPLETIONS)
    return body_of(plan)


def test_a_chat_goes_on_as_a_completion_of_its_tokens() -> None:
    body = by_tokens(temperature=0, max_tokens=10, stop=["x"], top_p=0.5, vllm_xargs={"a": 1}, tools=None)
    assert body["prompt"] == [1, 2, 3, 7, 8]
    assert (body["max_tokens"], body["stop"], body["top_p"], body["vllm_xargs"]) == (8, ["x"], 0.5, {"a": 1})
    assert not {"messages", "tools"} & set(body)
    assert body["stream"] is True
    assert body["return_token_ids"] is True
    assert body["add_special_tokens"] is False


@pytest.mark.parametrize(
    ("route", "fields", "left"),
    [
        (CHAT, {}, 95),
        (CHAT, {"max_completion_tokens": 5, "max_tokens": 50}, 3),
        (CHAT, {"max_tokens": 1000}, 95),
        (COMPLETIONS, {}, 14),
        (COMPLETIONS, {"max_tokens": 3}, 1),
    ],
)
def test_the_limit_is_what_is_left_of_the_clients_or_of_the_context(route: str, fields: Any, left: int) -> None:
    assert by_tokens(route, **fields)["max_tokens"] == left


def test_least_tokens_and_seed_follow_what_was_delivered() -> None:
    body = by_tokens(min_tokens=5, seed=11)
    assert (body["min_tokens"], body["seed"]) == (3, 13)
    assert by_tokens(min_tokens=1)["min_tokens"] == 0


def test_nothing_left_is_no_request() -> None:
    fields = {"model": "m", "messages": HELLO, "max_tokens": 2}
    assert resume(CHAT, fields, delivered(), 100, True) == "it has no tokens left"
    assert resume(CHAT, {**fields, "max_tokens": 9}, delivered(), 5, True) == "it has no tokens left"


def test_without_ids_a_chat_goes_on_from_its_text() -> None:
    fields = {"model": "m", "messages": HELLO, "max_tokens": 10, "return_token_ids": True}
    plan = resume(CHAT, fields, delivered(exact=False), 100, True)
    body = body_of(plan)
    assert body["messages"][-1] == {"role": "assistant", "content": "ab"}
    assert (body["continue_final_message"], body["add_generation_prompt"], body["max_tokens"]) == (True, False, 8)
    assert body_of(resume(CHAT, fields, delivered(), 100, False))["messages"] == body["messages"]


def test_without_ids_a_completion_goes_on_from_its_text() -> None:
    fields = {"model": "m", "prompt": "hello ", "max_tokens": 10}
    assert body_of(resume(COMPLETIONS, fields, delivered(exact=False), 100, True))["prompt"] == "hello ab"
    assert isinstance(resume(COMPLETIONS, {**fields, "prompt": [1, 2]}, delivered(exact=False), 100, True), str)


def test_a_stream_of_which_only_the_role_came_is_asked_for_again() -> None:
    fields = {"model": "m", "messages": HELLO}
    plan = resume(CHAT, fields, delivered(exact=False, pieces=[], ids=array("I"), events=0), 100, True)
    assert body_of(plan)["messages"] == HELLO


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"n": 2}, "several choices"),
        ({"logprobs": True}, "log probabilities"),
        ({"logprobs": 0}, None),
        ({"top_logprobs": 3}, "log probabilities"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [{"type": "function"}], "tool_choice": "none"}, None),
        ({"tools": []}, None),
        ({"response_format": {"type": "json_object"}}, "structure"),
        ({"response_format": {"type": "text"}}, None),
        ({"structured_outputs": {"regex": "a"}}, "structure"),
        ({"presence_penalty": 0.5}, "penalties"),
        ({"frequency_penalty": 0}, None),
        ({"echo": True}, "echo"),
        ({"prompt": ["a", "b"]}, "several prompts"),
        ({"prompt": [1, 2]}, None),
        ({"prompt": [[1, 2]]}, None),
        ({"repetition_penalty": 1.1, "logit_bias": {"5": 1}, "stop": "x"}, None),
    ],
)
def test_what_can_not_be_resumed_says_why(fields: Any, reason: str | None) -> None:
    why = why_not(fields)
    assert (why is None) if reason is None else (why is not None and reason in why)


def test_an_odd_answer_is_not_resumed() -> None:
    fields = {"model": "m", "messages": HELLO}
    assert resume(CHAT, fields, delivered(oddity="reasoning"), 100, True) == "reasoning"
    assert "route" in str(resume("/v1/responses", fields, delivered(), 100, True))
