"""Events pass whole and unchanged, however their bytes arrive."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from serve_app.relay.sse import DONE, MAX_EVENT_BYTES, EventStream


@given(
    events=st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line and b"\r" not in line)),
    cuts=st.lists(st.integers(0, 200)),
    blank_line=st.sampled_from((b"\n\n", b"\r\n\r\n")),
)
def test_whole_events_pass(events: list[bytes], cuts: list[int], blank_line: bytes) -> None:
    body = b"".join(b"data: " + event + blank_line for event in [*events, b"[DONE]"])
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    stream = EventStream()
    passed = []
    for start, end in pairwise(bounds):
        assert not stream.finished
        passed.append(stream.feed(body[start:end]))
        assert b"".join(passed).endswith(blank_line) or not any(passed)
        if b"".join(passed) == body:
            break
    assert b"".join(passed) == body
    assert stream.finished


def test_half_a_done_is_not_the_end() -> None:
    stream = EventStream()
    assert stream.feed(b"data: 1\n\n" + DONE) == b"data: 1\n\n"
    assert not stream.finished


def test_an_endless_event_is_not_kept() -> None:
    stream = EventStream()
    assert stream.feed(b"x" * MAX_EVENT_BYTES) == b""
    assert len(stream.feed(b"x")) == MAX_EVENT_BYTES + 1
