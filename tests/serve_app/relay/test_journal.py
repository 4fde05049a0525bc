"""What a journal knows of a stream."""

import json
from typing import Any

from serve_app.relay.journal import COMPACT_BYTES, Journal


def event(text: str | None = None, ids: list[int] | None = None, **choice: Any) -> bytes:
    made = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None, "token_ids": ids, **choice}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [made]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def test_text_and_tokens_survive_any_number_of_compactions() -> None:
    journal = Journal()
    for number in range(1000):
        journal.add(event(f"w{number} ", [number]))
        if number % 97 == 0:
            journal.read()
    delivered = journal.read()
    assert delivered.text == "".join(f"w{number} " for number in range(1000))
    assert list(delivered.ids) == list(range(1000))
    assert (delivered.exact, delivered.tokens, delivered.id, delivered.created) == (True, 1000, "x", 7)


def test_memory_is_bounded_by_ids_and_text() -> None:
    journal = Journal()
    for _ in range(1000):
        journal.add(event("é", [1]))
        assert sum(map(len, journal._blocks)) <= COMPACT_BYTES + 4096


def test_prompt_ids_come_with_the_chunk_or_with_its_choice() -> None:
    chat, text = Journal(), Journal()
    chunk = {"id": "x", "choices": [{"index": 0, "delta": {"role": "assistant"}}], "prompt_token_ids": [1, 2]}
    chat.add(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    text.add(event("a", [3], prompt_token_ids=[1, 2]))
    assert list(chat.read().prompt_ids or ()) == list(text.read().prompt_ids or ()) == [1, 2]


def test_without_ids_tokens_are_about_as_many_as_events() -> None:
    journal = Journal()
    role = event(delta={"role": "assistant", "content": ""})
    journal.add(role + event("a") + event("") + event("b"))
    assert (journal.read().exact, journal.read().tokens) == (False, 3)


def test_what_could_not_be_continued_is_named() -> None:
    odd: list[tuple[dict[str, Any], str]] = [
        ({"index": 1}, "several choices"),
        ({"logprobs": {"content": []}}, "log probabilities"),
        ({"delta": {"tool_calls": [{"index": 0}]}}, "a tool call half way"),
        ({"delta": {"reasoning": "hm"}}, "reasoning"),
    ]
    for choice, oddity in odd:
        journal = Journal()
        journal.add(event("a", [1], **choice))
        assert journal.read().oddity == oddity
    journal = Journal()
    journal.add(b'data: {"choices": [{"delta"}\n\n')
    assert journal.read().oddity == "an event that can't be read"


def test_the_end_and_the_usage_are_known() -> None:
    journal = Journal()
    journal.add(event("a", [1], finish_reason="stop"))
    assert not journal.read().usage_sent
    journal.add(b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":1}}\n\n')
    assert (journal.read().finish_reason, journal.read().usage_sent) == ("stop", True)
