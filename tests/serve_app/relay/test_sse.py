"""Events, as far as a relay must know them."""

import pytest

from serve_app.relay.sse import IDS, NO_IDS, end_of_events, first_fault

CHUNK = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", 0),
        (b"data: {", 0),
        (b"data: {}\n", 0),
        (b"data: {}\n\n", 10),
        (b"data: {}\n\ndata: {", 10),
        (b"data: {}\r\n\r\ndata", 12),
        (b"data: {}\n\ndata: {}\r\n\r\n", 22),
        (b"\n\n", 2),
    ],
)
def test_only_whole_events_end(data: bytes, end: int) -> None:
    assert end_of_events(data) == end


def test_token_ids_are_taken_out_and_text_about_them_is_not() -> None:
    event = b'data: {"choices":[{"text":"\\"token_ids\\":[1]","token_ids":[12, 3],"prompt_token_ids":[1]}]}\n\n'
    assert IDS.subn(NO_IDS, event) == (
        b'data: {"choices":[{"text":"\\"token_ids\\":[1]","token_ids":null,"prompt_token_ids":null}]}\n\n',
        2,
    )


@pytest.mark.parametrize(
    "trouble",
    [
        b'data: {"error": {"message": "dead"}}',
        b'data: {"error":{"message":"dead"}}',
        b'data: {"choices": [{"delta"',
        b"<html>",
        b"data: nonsense",
    ],
)
def test_the_first_event_that_is_none_is_found(trouble: bytes) -> None:
    fault = first_fault(CHUNK + trouble + b"\n\n" + b"data: [DONE]\n\n")
    assert fault is not None
    assert fault[0] == len(CHUNK)


@pytest.mark.parametrize(
    "good",
    [
        CHUNK * 2 + b"data: [DONE]\n\n",
        b": keep-alive\n\n" + CHUNK,
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        b'data: {"choices":[{"delta":{"content":"data: {\\"error\\": 1}"}}]}\n\n',
    ],
)
def test_plain_events_have_no_fault(good: bytes) -> None:
    assert first_fault(good) is None
