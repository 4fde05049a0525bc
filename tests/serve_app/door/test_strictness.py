"""Bytes that are not quite HTTP: what the door takes, what it refuses, and that a refusal ends the connection."""

import json
from collections.abc import Iterator

import pytest

from serve_app.door.limits import Limits
from tests.serve_app.door.conftest import Running, error_code, running

GET = b"GET /hot HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /hot HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
MALFORMED = (400, "malformed_request")
NOT_IMPLEMENTED = (501, "not_implemented")
OTHER_VERSION = (505, "http_version_not_supported")

REFUSED = {
    # Two ways to say how long the body is, or a way that has two readings.
    "length and coding": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", MALFORMED),
    "coding and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", MALFORMED),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", MALFORMED),
    "the same length twice": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", MALFORMED),
    "a list of lengths": (POST + b"Content-Length: 3, 3\r\n\r\nabc", MALFORMED),
    "a length with a sign": (POST + b"Content-Length: +3\r\n\r\nabc", MALFORMED),
    "a negative length": (POST + b"Content-Length: -3\r\n\r\nabc", MALFORMED),
    "a hexadecimal length": (POST + b"Content-Length: 0x3\r\n\r\nabc", MALFORMED),
    "an empty length": (POST + b"Content-Length:\r\n\r\nabc", MALFORMED),
    "a length beyond 64 bits": (POST + b"Content-Length: 99999999999999999999\r\n\r\nabc", MALFORMED),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", MALFORMED),
    "chunked and identity": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", MALFORMED),
    "a coding other than chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", NOT_IMPLEMENTED),
    "a coding that does not end with chunked": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", MALFORMED),
    "a coding behind a control character": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", MALFORMED),
    "an empty coding": (POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", MALFORMED),
    "a coding in HTTP/1.0": (b"POST /hot HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", MALFORMED),
    "gzip within chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", NOT_IMPLEMENTED),
    # Chunks.
    "a chunk size with a prefix": (CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", MALFORMED),
    "a negative chunk size": (CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n", MALFORMED),
    "no chunk size": (CHUNKED + b"\r\nabc\r\n0\r\n\r\n", MALFORMED),
    "a space after a chunk size": (CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n", MALFORMED),
    "a chunk size beyond 64 bits": (CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n", MALFORMED),
    "a chunk longer than its size": (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", MALFORMED),
    "bare LF after a chunk size": (CHUNKED + b"3\nabc\r\n0\r\n\r\n", MALFORMED),
    "bare LF after a chunk": (CHUNKED + b"3\r\nabc\n0\r\n\r\n", MALFORMED),
    "bare LF in a chunk extension": (CHUNKED + b"3;a\nabc\r\n0\r\n\r\n", MALFORMED),
    "bare LF at the end": (CHUNKED + b"3\r\nabc\r\n0\r\n\n", MALFORMED),
    "a length among the trailers": (CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", MALFORMED),
    # Lines and headers.
    "bare LF everywhere": (b"GET /hot HTTP/1.1\nHost: a\n\n", MALFORMED),
    "bare LF after a header": (b"GET /hot HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", MALFORMED),
    "bare LF after the headers": (GET + b"\n", MALFORMED),
    "bare CR in a header": (GET + b"X: a\rb\r\n\r\n", MALFORMED),
    "a folded header": (GET + b"X: a\r\n b\r\n\r\n", MALFORMED),
    "a space before the colon": (GET + b"X : a\r\n\r\n", MALFORMED),
    "a space before the first header": (b"GET /hot HTTP/1.1\r\n Host: a\r\n\r\n", MALFORMED),
    "a header without a name": (GET + b": a\r\n\r\n", MALFORMED),
    "a header without a colon": (GET + b"X\r\n\r\n", MALFORMED),
    "NUL in a header": (GET + b"X: a\0b\r\n\r\n", MALFORMED),
    "a control character in a header": (GET + b"X: a\x01b\r\n\r\n", MALFORMED),
    "a name beyond ASCII": (GET + b"X\xff: a\r\n\r\n", MALFORMED),
    # The request line.
    "no host": (b"GET /hot HTTP/1.1\r\n\r\n", MALFORMED),
    "two hosts": (GET + b"Host: b\r\n\r\n", MALFORMED),
    "a host with a space": (b"GET /hot HTTP/1.1\r\nHost: a b\r\n\r\n", MALFORMED),
    "a host with a user": (b"GET /hot HTTP/1.1\r\nHost: u@a\r\n\r\n", MALFORMED),
    "NUL in the target": (b"GET /hot\0 HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "a target beyond ASCII": (b"GET /hot\xff HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "a target with a fragment": (b"GET /hot#x HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "a relative target": (b"GET hot HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "a space after the version": (b"GET /hot HTTP/1.1 \r\nHost: a\r\n\r\n", MALFORMED),
    "another protocol": (b"GET /hot FTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "HTTP/0.9 without a version": (b"GET /hot\r\n\r\n", OTHER_VERSION),
    "HTTP/0.9": (b"GET /hot HTTP/0.9\r\n\r\n", OTHER_VERSION),
    "HTTP/1.2": (b"GET /hot HTTP/1.2\r\nHost: a\r\n\r\n", OTHER_VERSION),
    "HTTP/2.0": (b"GET /hot HTTP/2.0\r\nHost: a\r\n\r\n", OTHER_VERSION),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", OTHER_VERSION),
    "an unknown method": (b"FETCH /hot HTTP/1.1\r\nHost: a\r\n\r\n", NOT_IMPLEMENTED),
    "a method in small letters": (b"get /hot HTTP/1.1\r\nHost: a\r\n\r\n", NOT_IMPLEMENTED),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", NOT_IMPLEMENTED),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", NOT_IMPLEMENTED),
    "an unknown expectation": (POST + b"Expect: tea\r\nContent-Length: 3\r\n\r\nabc", (417, "unknown_expectation")),
}

TAKEN = {
    "a length with white space around": (POST + b"Content-Length: \t3 \t\r\n\r\nabc", "abc"),
    "chunks": (CHUNKED + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n", "abcdefg"),
    "chunk extensions": (CHUNKED + b'3;a;b=c;d="e"\r\nabc\r\n0\r\n\r\n', "abc"),
    "leading zeros": (CHUNKED + b"0003\r\nabc\r\n000\r\n\r\n", "abc"),
    "trailers": (CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nHost: b\r\n\r\n", "abc"),
    "capitals": (POST + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc"),
    "no body": (POST + b"\r\n", ""),
    "a body of nothing": (POST + b"Content-Length: 0\r\n\r\n", ""),
    "a body of GET": (GET + b"Content-Length: 3\r\n\r\nabc", "abc"),
    "empty lines before a request": (b"\r\n\r\n" + GET + b"\r\n", ""),
    "an empty host": (b"GET /hot HTTP/1.1\r\nHost:\r\n\r\n", ""),
    "a host with a port": (b"GET /hot HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", ""),
    "a value beyond ASCII": (GET + b"X: a\xffb\r\n\r\n", ""),
}


@pytest.fixture(scope="module")
def door() -> Iterator[Running]:
    with running() as door:
        yield door


@pytest.mark.parametrize("whole", [True, False], ids=["in one piece", "byte by byte"])
@pytest.mark.parametrize(("sent", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_http_is_refused_and_the_connection_closed(
    door: Running, sent: bytes, expected: tuple[int, str], whole: bool
) -> None:
    before = len(door.desk.requests)
    with door.connect() as client:
        for piece in [sent] if whole else [sent[at : at + 1] for at in range(len(sent))]:
            client.send(piece)
        status, headers, body = client.answer()
        assert (status, error_code(body)) == expected
        assert headers["connection"] == "close"
        client.send(GET + b"\r\n")
        assert client.is_closed()
    assert len(door.desk.requests) == before


@pytest.mark.parametrize("whole", [True, False], ids=["in one piece", "byte by byte"])
@pytest.mark.parametrize(("sent", "body"), TAKEN.values(), ids=TAKEN.keys())
def test_what_is_unusual_but_clear_is_taken_and_the_connection_goes_on(
    door: Running, sent: bytes, body: str, whole: bool
) -> None:
    with door.connect() as client:
        for piece in [sent] if whole else [sent[at : at + 1] for at in range(len(sent))]:
            client.send(piece)
        status, _, said = client.answer()
        assert (status, json.loads(said)["body"]) == (200, body)
        client.send(GET + b"\r\n")
        assert client.answer()[0] == 200


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/hot/a?b=c&d=%20", "/hot/a", "b=c&d=%20"),
        (b"/hot/a%2Fb%20c?", "/hot/a/b c", ""),
        (b"/hot/%ff", "/hot/\ufffd", ""),
        (b"/hot?a?b", "/hot", "a?b"),
        (b"http://other.example/hot/a?b", "/hot/a", "b"),
        (b"http://other.example:80/hot?b=http://x/y", "/hot", "b=http://x/y"),
    ],
)
def test_path_and_query_of_a_target(door: Running, target: bytes, path: str, query: str) -> None:
    with door.connect(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target) as client:
        said = json.loads(client.answer()[2])
    assert (said["path"], said["query"]) == (path, query)


@pytest.mark.parametrize("target", [b"*", b"http://a", b"http://a?b=/hot"])
def test_targets_without_a_path_are_not_found(door: Running, target: bytes) -> None:
    with door.connect(b"OPTIONS %b HTTP/1.1\r\nHost: a\r\n\r\n" % target) as client:
        assert client.answer()[0] == 404


def test_header_names_are_lower_case_and_values_stripped_in_their_order(door: Running) -> None:
    with door.connect(GET + b"X-One: \t a b \t\r\nx-TWO:\r\nX-One: c\r\n\r\n") as client:
        said = json.loads(client.answer()[2])
    assert said["headers"] == [["host", "a"], ["x-one", "a b"], ["x-two", ""], ["x-one", "c"]]


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
def test_an_upgrade_is_ignored_and_its_body_read(door: Running, framing: bytes) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    with door.connect(POST + offer + framing + GET + b"\r\n") as client:
        status, headers, said = client.answer()
        assert (status, json.loads(said)["body"]) == (200, "abc")
        assert "upgrade" not in headers
        assert json.loads(client.answer()[2])["method"] == "GET"


def test_garbage_behind_a_good_request_is_refused_after_its_answer(door: Running) -> None:
    with door.connect(GET + b"\r\n" + b"garbage\r\n\r\n") as client:
        assert client.answer()[0] == 200
        assert client.answer()[0] == 501
        assert client.is_closed()


def test_more_upgrades_in_one_packet_than_a_client_may_pipeline() -> None:
    request = GET + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    with running(Limits(max_pipelined=4)) as door, door.connect(request * 1000) as client:
        assert [client.answer()[1].get("connection") for _ in range(4)] == [None, None, None, "close"]
        assert client.is_closed()
