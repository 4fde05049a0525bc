"""Clients that send too much, too slowly, or not at all."""

import socket
import time
from collections.abc import Iterator

import pytest

from serve_app.door import connection
from serve_app.door.limits import Limits
from tests.serve_app.door.conftest import Running, error_code, running
from tests.serve_app.waiting import wait_for

GET = b"GET /hot HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /hot HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMALL = Limits(max_head_bytes=2000, max_headers=10, max_target_bytes=500, max_body_bytes=1000)


@pytest.fixture(scope="module")
def small() -> Iterator[Running]:
    with running(SMALL) as door:
        yield door


TOO_MUCH = {
    "a long target": (b"GET /hot" + b"x" * 500 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "url_too_long"),
    "a target without an end": (b"GET /hot" + b"x" * 2000, 414, "url_too_long"),
    "a long header": (POST + b"X: " + b"x" * 2000 + b"\r\n\r\n", 431, "headers_too_large"),
    "a header without an end": (POST + b"X: " + b"x" * 3000, 431, "headers_too_large"),
    "many headers": (POST + b"X: y\r\n" * 10 + b"\r\n", 431, "headers_too_large"),
    "a large body, announced": (POST + b"Content-Length: 1001\r\n\r\n", 413, "request_too_large"),
    "a length of many digits": (POST + b"Content-Length: " + b"0" * 1500 + b"\r\n\r\n", 413, "request_too_large"),
    "a large body": (CHUNKED + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n", 413, "request_too_large"),
    "a large body in many chunks": (CHUNKED + b"64\r\n%b\r\n" % (b"x" * 100) * 11, 413, "request_too_large"),
    "a chunk extension without an end": (CHUNKED + b"3;" + b"x" * 5000, 413, "request_too_large"),
    "trailers without an end": (CHUNKED + b"0\r\n" + b"X: y\r\n" * 1000, 413, "request_too_large"),
}


@pytest.mark.parametrize("piece", [2**20, 50], ids=["in one piece", "in small pieces"])
@pytest.mark.parametrize(("sent", "status", "code"), TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_too_much_is_refused_and_the_connection_closed(
    small: Running, sent: bytes, status: int, code: str, piece: int
) -> None:
    with small.connect() as client:
        for at in range(0, len(sent), piece):
            client.send(sent[at : at + piece])
            time.sleep(0.001)
        received, headers, body = client.answer()
        assert (received, error_code(body), headers["connection"]) == (status, code, "close")
        assert client.is_closed()
    assert small.desk.requests == []


def test_what_is_just_small_enough_is_taken(small: Running) -> None:
    target = b"/hot" + b"x" * 496
    headers = b"X: " + b"x" * 1400 + b"\r\n" + b"Y: y\r\n" * 7
    requests = b"POST %b HTTP/1.1\r\nHost: a\r\n%bContent-Length: 1000\r\n\r\n%b" % (target, headers, b"x" * 1000)
    with small.connect(requests * 3) as client:
        assert [client.answer()[0] for _ in range(3)] == [200, 200, 200]
    small.desk.requests.clear()


def test_an_oversized_body_is_swallowed_for_a_second_so_that_the_client_sees_the_answer() -> None:
    with running(SMALL) as door, door.connect(POST + b"Content-Length: 3000000\r\n\r\n") as client:
        client.send(b"x" * 1_500_000)
        assert client.answer()[0] == 413
        client.send(b"x" * 1_500_000)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.is_closed()


def test_a_body_that_goes_on_for_ever_after_a_refusal_is_cut_off() -> None:
    with running(SMALL) as door, door.connect(POST + b"Content-Length: 3000000\r\n\r\n") as client:
        assert client.answer()[0] == 413
        wait_for(lambda: _send_fails(client.sock))


def _send_fails(sock: socket.socket) -> bool:
    try:
        sock.sendall(b"x")
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize(
    ("start", "drip"),
    [
        (b"GET /hot", b"x"),
        (POST, b"X: y\r\n"),
        (POST + b"Content-Length: 500\r\n\r\n", b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
    ],
)
def test_a_request_that_drips_in_is_given_up_with_408(start: bytes, drip: bytes) -> None:
    limits = Limits(header_timeout_s=1, body_timeout_s=1)
    with running(limits) as door, door.connect(start) as client:
        client.sock.settimeout(0.05)
        started = time.monotonic()
        while not _readable(client.sock):
            client.send(drip)
            assert time.monotonic() < started + 20
        client.sock.settimeout(20)
        status, headers, body = client.answer()
        assert (status, error_code(body), headers["connection"]) == (408, "request_timeout", "close")


def _readable(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False


@pytest.mark.parametrize("before", [b"", b"\r\n"], ids=["nothing", "an empty line"])
def test_a_connection_that_never_asks_is_closed_without_a_word(before: bytes) -> None:
    with running(Limits(header_timeout_s=0.5)) as door, door.connect(before) as client:
        assert client.is_closed()


def test_an_idle_connection_is_closed() -> None:
    with running(Limits(keep_alive_s=0.5)) as door, door.connect(GET) as client:
        assert client.answer()[0] == 200
        assert client.is_closed()


def test_waiting_for_an_answer_is_not_idling() -> None:
    limits = Limits(keep_alive_s=0.3, header_timeout_s=0.3, body_timeout_s=0.3)
    with running(limits) as door, door.connect(b"GET /hot/held HTTP/1.1\r\nHost: a\r\n\r\n" + GET[:9]) as client:
        sink = door.held().sink
        time.sleep(1.2)
        door.soon(sink.start, 200, [], 2)
        door.soon(sink.write, b"ok")
        door.soon(sink.finish)
        assert client.answer()[2] == b"ok"
        client.send(GET[9:])
        assert client.answer()[0] == 200


def test_connections_beyond_the_limit_are_told_so() -> None:
    with running(Limits(max_connections=2)) as door:
        with door.connect(GET) as first, door.connect(GET) as second:
            assert (first.answer()[0], second.answer()[0]) == (200, 200)
            with door.connect(GET) as third:
                status, headers, body = third.answer()
                assert (status, error_code(body)) == (503, "too_many_connections")
                assert (headers["retry-after"], headers["connection"]) == ("1", "close")
                assert third.is_closed()
            first.send(GET)
            assert first.answer()[0] == 200
        wait_for(lambda: not door.door.connections)
        with door.connect(GET) as fourth:
            assert fourth.answer()[0] == 200


def test_a_flood_of_connections_is_closed_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REFUSED_AT_ONCE", 0)
    with running(Limits(max_connections=1)) as door, door.connect(GET) as first:
        assert first.answer()[0] == 200
        with door.connect() as second:
            assert second.is_closed()
        first.send(GET)
        assert first.answer()[0] == 200


def test_a_client_that_takes_nothing_is_cut_off() -> None:
    with running(Limits(write_timeout_s=1)) as door, door.connect(b"GET /hot/held HTTP/1.1\r\nHost: a\r\n\r\n"):
        held = door.held()
        door.soon(held.sink.start, 200, [], None)
        door.soon(held.sink.write, b"x" * 2**24)
        wait_for(lambda: held.told == ["pause", "left"])


def test_a_client_that_takes_nothing_of_a_finished_answer_is_cut_off() -> None:
    with running(Limits(write_timeout_s=1)) as door, door.connect(b"GET /hot/held HTTP/1.0\r\n\r\n"):
        held = door.held()
        door.soon(held.sink.start, 200, [], None)
        door.soon(held.sink.write, b"x" * 2**24)
        door.soon(held.sink.finish)
        wait_for(lambda: not door.door.connections)


def test_a_slow_client_that_takes_something_gets_all_of_it() -> None:
    size = 2**23
    request = b"GET /hot/held HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with running(Limits(write_timeout_s=1)) as door, door.connect(request) as client:
        held = door.held()
        door.soon(held.sink.start, 200, [], size)
        door.soon(held.sink.write, b"x" * size)
        door.soon(held.sink.finish)
        client.head()
        received = 0
        while piece := client.read(2**17):
            received += len(piece)
            time.sleep(0.05)
        assert received == size
