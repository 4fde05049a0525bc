"""Requests come out the same however the network cuts them, and nothing but refusals comes of garbage."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.door.exchange import Request
from serve_app.door.limits import Limits
from serve_app.door.parser import RequestParser
from serve_app.errors import ApiError

REQUESTS = (
    b"GET /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world",
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n1\r\n!\r\n0\r\nT: t\r\n\r\n",
    b"POST /d HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
    b"PUT /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /f HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
)


def read(pieces: list[bytes]) -> tuple[list[Request], ApiError | None]:
    parser = RequestParser(Limits())
    try:
        for piece in pieces:
            parser.feed(piece)
    except ApiError as error:
        return parser.whole, error
    finally:
        parser.close()
    return parser.whole, None


def cut(data: bytes, at: list[int]) -> list[bytes]:
    marks = [0, *sorted(mark % (len(data) + 1) for mark in at), len(data)]
    return [data[start:end] for start, end in pairwise(marks)]


cuts = st.lists(st.integers(0, 10_000), max_size=20)


@given(st.lists(st.sampled_from(REQUESTS), max_size=10), cuts)
def test_requests_are_the_same_however_they_are_cut(sent: list[bytes], at: list[int]) -> None:
    alone = [request for one in sent for request in read([one])[0]]
    assert len(alone) == len(sent)
    assert read(cut(b"".join(sent), at)) == (alone, None)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4), st.data())
def test_damaged_requests_are_refused_or_read_the_same_however_they_are_cut(
    sent: list[bytes], data: st.DataObject
) -> None:
    damaged = bytearray(b"".join(sent))
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.sampled_from(b"\0\r\n :;,0aA\xff\x7f\t"))
    whole, error = read([bytes(damaged)])
    again, other = read(cut(bytes(damaged), data.draw(cuts)))
    assert (again, type(other)) == (whole, type(error))
