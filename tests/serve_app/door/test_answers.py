"""What clients get, in which form and order, and what those who answer are told."""

import json
import socket
import struct
import threading

import pytest

from serve_app.door.limits import Limits
from tests.serve_app.door.conftest import JSON, Running, error_code, running
from tests.serve_app.waiting import wait_for

GET = b"GET /hot HTTP/1.1\r\nHost: a\r\n\r\n"
HELD = b"GET /hot/held HTTP/1.1\r\nHost: a\r\n\r\n"
OLD_HELD = b"GET /hot/held HTTP/1.0\r\n\r\n"


def answer(door: Running, length: int | None, *pieces: bytes, number: int = 0, status: int = 200) -> None:
    """Let the held request be answered with `pieces`."""
    sink = door.held(number).sink
    door.soon(sink.start, status, JSON, length)
    for piece in pieces:
        door.soon(sink.write, piece)
    door.soon(sink.finish)


# Framing


def test_an_answer_of_known_length(door: Running) -> None:
    with door.connect(HELD) as client:
        answer(door, 5, b"ab", b"", b"cde")
        status, headers, body = client.answer()
    assert (status, body) == (200, b"abcde")
    assert set(headers) == {"content-type", "content-length", "date"}
    assert headers["content-length"] == "5"


@pytest.mark.parametrize("size", [1, 20_000])
def test_an_answer_of_unknown_length_comes_in_chunks_as_they_were_written(door: Running, size: int) -> None:
    with door.connect(HELD) as client:
        answer(door, None, b"a" * size, b"", b"b" * size)
        status, headers = client.head()
        assert list(client.chunks()) == [b"a" * size, b"b" * size]
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        assert "content-length" not in headers
        client.send(GET)
        assert client.answer()[0] == 200


@pytest.mark.parametrize("length", [0, None])
def test_an_answer_without_a_byte(door: Running, length: int | None) -> None:
    with door.connect(HELD) as client:
        answer(door, length)
        assert client.answer()[2] == b""
        client.send(GET)
        assert client.answer()[0] == 200


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body(door: Running, status: int) -> None:
    with door.connect(HELD) as client:
        answer(door, 5, b"abcde", status=status)
        received, headers, _ = client.answer(bodiless=True)
        assert received == status
        assert not {"content-length", "transfer-encoding"} & set(headers)
        client.send(GET)
        assert client.answer()[0] == 200


@pytest.mark.parametrize("length", [5, None])
def test_head_gets_the_headers_alone(door: Running, length: int | None) -> None:
    with door.connect(b"HEAD /hot/held HTTP/1.1\r\nHost: a\r\n\r\n" + GET) as client:
        answer(door, length, b"abcde")
        _, headers, _ = client.answer(bodiless=True)
        assert headers.get("content-length") == (str(length) if length else None)
        assert json.loads(client.answer()[2])["method"] == "GET"


def test_a_status_without_a_standard_phrase(door: Running) -> None:
    with door.connect(HELD) as client:
        answer(door, 0, status=529)
        assert client.answer()[0] == 529


@pytest.mark.parametrize(
    "pieces", [(b"abc",), (b"abc", b"defg"), (b"abcdefg",), ()], ids=["short", "long in two", "long", "nothing"]
)
def test_an_answer_of_another_length_than_announced_is_broken_off(door: Running, pieces: tuple[bytes, ...]) -> None:
    with door.connect(HELD) as client:
        answer(door, 5, *pieces)
        received = _all(client.sock)
    assert len(received.partition(b"\r\n\r\n")[2]) < 5


def test_a_handler_that_fails_gives_a_500(door: Running, caplog: pytest.LogCaptureFixture) -> None:
    with door.connect(b"GET /hot/bug HTTP/1.1\r\nHost: a\r\n\r\n" + GET) as client:
        status, _, body = client.answer()
        assert (status, error_code(body)) == (500, "internal_error")
        assert client.answer()[0] == 200
    assert "ZeroDivisionError" in caplog.text


# Keeping connections


@pytest.mark.parametrize(
    ("request_head", "said", "stays"),
    [
        (b"GET /hot HTTP/1.1\r\nHost: a\r\n\r\n", None, True),
        (b"GET /hot HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close", False),
        (b"GET /hot HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", "close", False),
        (b"GET /hot HTTP/1.0\r\n\r\n", "close", False),
        (b"GET /hot HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive", True),
    ],
)
def test_whether_a_connection_stays(door: Running, request_head: bytes, said: str | None, stays: bool) -> None:
    with door.connect(request_head + request_head) as client:
        assert client.answer()[1].get("connection") == said
        if stays:
            assert client.answer()[1].get("connection") == said
        else:
            assert client.is_closed()


def test_http_1_0_gets_an_answer_of_unknown_length_without_chunks(door: Running) -> None:
    with door.connect(b"GET /hot/held HTTP/1.0\r\nConnection: keep-alive\r\n\r\n") as client:
        answer(door, None, b"abc", b"def")
        status, headers, body = client.answer()
    assert (status, headers["connection"], body) == (200, "close", b"abcdef")
    assert "transfer-encoding" not in headers


# Order


def test_pipelined_requests_are_answered_in_order_one_at_a_time(door: Running) -> None:
    with door.connect(HELD + GET + HELD + GET) as client:
        door.held()
        client.send(GET)
        assert len(door.desk.requests) == 1
        answer(door, 1, b"1")
        assert client.answer()[2] == b"1"
        assert client.answer()[0] == 200
        door.held(1)
        assert len(door.desk.requests) == 3
        answer(door, None, b"2", number=1)
        assert client.answer()[2] == b"2"
        assert [client.answer()[0], client.answer()[0]] == [200, 200]


def test_what_a_client_sends_ahead_is_bounded_and_none_of_it_lost(door: Running) -> None:
    request = b"POST /hot HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    count = 300
    with door.connect(HELD) as client:
        door.held()
        sent = _send_what_fits(client.sock, request * count)
        assert sent < len(request) * count
        client.sock.settimeout(20)
        answer(door, 1, b"1")
        assert client.answer()[2] == b"1"
        sender = threading.Thread(target=client.send, args=((request * count)[sent:],))
        sender.start()
        for _ in range(count):
            assert len(json.loads(client.answer()[2])["body"]) == 100_000
        sender.join()


def _send_what_fits(sock: socket.socket, data: bytes) -> int:
    """Until nobody has read for a while."""
    view = memoryview(data)
    sent = 0
    sock.settimeout(1)
    try:
        while sent < len(data):
            sent += sock.send(view[sent:])
    except TimeoutError:
        pass
    return sent


def test_more_requests_at_once_than_a_client_may_pipeline_end_the_connection_politely() -> None:
    with running(Limits(max_pipelined=3)) as door, door.connect(HELD + GET * 9) as client:
        answer(door, 1, b"1")
        assert [client.answer()[1].get("connection") for _ in range(3)] == [None, None, "close"]
        assert client.is_closed()


# Expect


def test_a_body_is_asked_for_with_100_and_only_then_sent(door: Running) -> None:
    head = b"POST /hot HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n"
    with door.connect(head) as client:
        assert client.head() == (100, {})
        client.send(b"abc")
        assert json.loads(client.answer()[2])["body"] == "abc"
        client.send(head + b"abc")
        assert client.answer()[0] == 200
        client.send(GET)
        assert client.answer()[0] == 200


def test_100_waits_for_the_answers_before(door: Running) -> None:
    with door.connect(
        HELD + b"POST /hot HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    ) as client:
        answer(door, 1, b"1")
        assert client.answer()[2] == b"1"
        assert client.head() == (100, {})
        client.send(b"abc")
        assert json.loads(client.answer()[2])["body"] == "abc"


def test_a_body_that_would_be_refused_is_not_asked_for() -> None:
    head = b"POST /hot HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n"
    with running(Limits(max_body_bytes=10)) as door, door.connect(head) as client:
        assert client.answer()[0] == 413


# Leaving


def test_a_client_that_half_closes_gets_its_answers(door: Running) -> None:
    with door.connect(GET + HELD + GET) as client:
        client.sock.shutdown(socket.SHUT_WR)
        assert client.answer()[0] == 200
        door.held()
        answer(door, 2, b"ok")
        while (status := client.head()[0]) == 100:
            pass
        assert (status, client.read(2)) == (200, b"ok")
        assert client.answer()[0] == 200
        assert client.is_closed()


def test_an_http_1_0_client_that_half_closes_sees_no_interim_answer(door: Running) -> None:
    with door.connect(OLD_HELD) as client:
        client.sock.shutdown(socket.SHUT_WR)
        door.held()
        answer(door, 2, b"ok")
        assert client.answer()[0] == 200


@pytest.mark.parametrize("reset", [True, False], ids=["with a reset", "properly"])
@pytest.mark.parametrize("begun", [True, False], ids=["within the answer", "before the answer"])
def test_a_client_that_leaves_is_noticed_within_a_second(door: Running, reset: bool, begun: bool) -> None:
    client = door.connect(HELD)
    held = door.held()
    if begun:
        door.soon(held.sink.start, 200, [], None)
        door.soon(held.sink.write, b"abc")
        client.head()
    if reset:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()

    def told() -> bool:
        if begun:
            door.soon(held.sink.write, b"abc")  # an answer that goes on
        return held.told == ["left"]

    wait_for(told, 5)
    door.soon(held.sink.write, b"abc")
    door.soon(held.sink.finish)
    wait_for(lambda: not door.door.connections)
    assert held.told == ["left"]


def test_a_client_that_sent_too_much_ahead_and_leaves_is_noticed(door: Running) -> None:
    client = door.connect(HELD)
    held = door.held()
    _send_what_fits(client.sock, b"x" * 2**24)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait_for(lambda: held.told == ["left"], 5)


@pytest.mark.parametrize("sent", [b"", GET[:10], b"POST /hot HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"])
def test_a_client_that_leaves_within_a_request_is_forgotten(door: Running, sent: bytes) -> None:
    with door.connect(sent) as client:
        wait_for(lambda: door.door.connections)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.is_closed()
    wait_for(lambda: not door.door.connections)
    assert door.desk.requests == []


# Breaking off, and slow clients


def test_a_chunked_answer_that_is_broken_off_has_no_end(door: Running) -> None:
    with door.connect(HELD) as client:
        held = door.held()
        door.soon(held.sink.start, 200, [], None)
        door.soon(held.sink.write, b"abc")
        door.soon(held.sink.abort)
        received = _all(client.sock)
    assert received.endswith(b"\r\n\r\n3\r\nabc\r\n")
    assert held.told == []


def test_an_http_1_0_answer_that_is_broken_off_ends_with_a_reset(door: Running) -> None:
    with door.connect(OLD_HELD) as client:
        held = door.held()
        door.soon(held.sink.start, 200, [], None)
        door.soon(held.sink.write, b"abc")
        client.head()
        door.soon(held.sink.abort)
        with pytest.raises(ConnectionResetError):
            _all(client.sock)


def _all(sock: socket.socket) -> bytes:
    received = b""
    while piece := sock.recv(2**16):
        received += piece
    return received


def test_a_slow_client_pauses_its_own_answer_alone(door: Running) -> None:
    with door.connect(HELD) as slow, door.connect(GET) as fast:
        held = door.held()
        size = 2**24
        door.soon(held.sink.start, 200, [], size)
        door.soon(held.sink.write, b"x" * size)
        door.soon(held.sink.finish)
        wait_for(lambda: held.told == ["pause"])
        assert fast.answer()[0] == 200
        slow.send(GET)
        assert len(slow.answer()[2]) == size
        assert slow.answer()[0] == 200
        assert held.told == ["pause"]


def test_an_answer_resumes_when_the_client_has_caught_up(door: Running) -> None:
    with door.connect(HELD) as client:
        held = door.held()
        door.soon(held.sink.start, 200, [], None)
        door.soon(held.sink.write, b"x" * 2**24)
        wait_for(lambda: held.told == ["pause"])
        client.head()
        chunks = client.chunks()
        assert len(next(chunks)) == 2**24
        wait_for(lambda: held.told == ["pause", "resume"])
        door.soon(held.sink.finish)
        assert list(chunks) == []
