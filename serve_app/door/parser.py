"""Bytes to requests. llhttp, within httptools, refuses most of what is ambiguous; the rest is refused here."""

import re
from enum import Enum
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import httptools

from serve_app.door.exchange import Request
from serve_app.door.limits import Limits
from serve_app.door.repeat import Repeat
from serve_app.errors import (
    ApiError,
    BodyTooLarge,
    ExpectationFailed,
    HeadTooLarge,
    Malformed,
    NotImplementedHere,
    TargetTooLong,
    VersionUnknown,
)

HOST = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)
OTHER_VERSION = ("Invalid HTTP version", "Pause on PRI/Upgrade")
"""What llhttp says to HTTP/3.1 and to HTTP/2's preface."""
MAX_DIGITS = 20
"""Of a length. Leading zeros are valid, but int() reads no more than 4300 digits."""

NO_PARSER = httptools.HttpRequestParser(object())


class Phase(Enum):
    """What the client is sending."""

    NOTHING = "between requests"
    HEAD = "a request line or headers"
    BODY = "a body"


NOTHING, HEAD, BODY = Phase


class RequestParser:
    """The requests of one connection. It neither writes nor waits."""

    __slots__ = (
        "_body",
        "_chunked",
        "_fed",
        "_feeding",
        "_headers",
        "_http",
        "_ignoring_upgrade",
        "_keep_alive",
        "_limits",
        "_method",
        "_repeat",
        "_target",
        "_version",
        "ended",
        "expects_continue",
        "phase",
        "whole",
    )

    def __init__(self, limits: Limits):
        self._limits = limits
        self._http = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: bytes | bytearray = b""
        self._method = self._version = ""
        self._chunked = self._keep_alive = self._ignoring_upgrade = False
        self._fed = 0  # bytes of the present request, as far as they came in earlier feeds
        self._feeding = 0
        self._repeat: Repeat | None = None
        self.phase = NOTHING
        self.whole: list[Request] = []
        """Requests that nobody has taken yet."""
        self.expects_continue = False
        """The client sends its body once it is told to."""
        self.ended = False
        """Whatever follows is not read."""

    def feed(self, data: bytes) -> None:
        """Raises ApiError for the request after those in `whole`; it is the last."""
        if self.phase is NOTHING and not self.ended:
            again = self._repeat.request(data) if self._repeat is not None else None
            if again is not None:
                self.whole.append(again)
                return
            self._parse(data)
            if self.phase is NOTHING and len(self.whole) == 1 and not self.ended:
                self._repeat = Repeat.of(data, self.whole[0], self._limits.max_body_bytes)
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        while data and not self.ended:
            self._feeding = len(data)
            data = self._feed(data)
            if self.phase is NOTHING:
                self._fed = 0
            else:
                self._fed += self._feeding
                self._check_size()

    def close(self) -> None:
        """Read no more, and break the cycle that would keep it in memory."""
        self.ended = True
        self._http = NO_PARSER

    def _feed(self, data: bytes) -> bytes:
        """Returns what must be fed again."""
        try:
            self._http.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if not self.ended:
                self.ended = True
                raise _told(error) from error
        return b""

    def _without_upgrade(self) -> bytes:
        """The head once more. RFC 9110 lets a server ignore an Upgrade, and Java's client offers h2c with every
        request; httptools alone would take the body for the other protocol's first bytes."""
        self._http = httptools.HttpRequestParser(self)
        self._ignoring_upgrade = False
        self.phase = NOTHING
        fields = b"".join(b"%b: %b\r\n" % header for header in self._headers if header[0] != b"upgrade")
        return b"%b %b HTTP/%b\r\n%b\r\n" % (self._method.encode(), self._target, self._version.encode(), fields)

    def _check_size(self) -> None:
        limits = self._limits
        if self.phase is HEAD and self._fed > limits.max_head_bytes:
            error: ApiError = HeadTooLarge(f"The headers are larger than {limits.max_head_bytes} bytes.")
        # Chunks of one byte, endless chunk extensions, trailers.
        elif self._chunked and self._fed - len(self._body) > limits.max_body_bytes + limits.max_head_bytes:
            error = BodyTooLarge(limits.max_body_bytes)
        else:
            return
        self.ended = True
        raise error

    # What httptools finds. What is raised here comes out of `feed_data` as the context of its own error.

    def on_message_begin(self) -> None:
        self.phase = HEAD
        self._target = self._body = b""
        self._headers = []

    def on_url(self, part: bytes) -> None:
        self._target += part
        if len(self._target) > self._limits.max_target_bytes:
            raise TargetTooLong(self._limits.max_target_bytes)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase is HEAD:  # else it is a trailer
            self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        self._check_head()
        self._method = self._http.get_method().decode()
        self._version = self._http.get_http_version()
        if self._version not in ("1.1", "1.0"):
            raise VersionUnknown
        if self._method == "CONNECT":
            raise NotImplementedHere("This port is not a proxy.")
        self._ignoring_upgrade = self._http.should_upgrade()
        self._keep_alive = self._http.should_keep_alive()
        self._check_fields(dict(self._headers))
        self.phase = BODY

    def on_body(self, part: bytes) -> None:
        if not self._body:
            self._body = part
        elif isinstance(self._body, bytearray):
            self._body += part
        else:
            self._body = bytearray(self._body) + part
        if len(self._body) > self._limits.max_body_bytes:
            raise BodyTooLarge(self._limits.max_body_bytes)

    def on_message_complete(self) -> None:
        if self._ignoring_upgrade or self.ended:
            return
        self.phase = NOTHING
        self.expects_continue = False
        self._fed = -self._feeding  # what else came with its end is not counted against the next one
        if len(self.whole) + 1 >= self._limits.max_pipelined:
            self._keep_alive = False
        self.ended = not self._keep_alive
        path, raw_path, query = split_target(self._target)
        body = self._body if isinstance(self._body, bytes) else bytes(self._body)
        self._body = b""
        self.whole.append(
            Request(self._method, path, raw_path, query, self._headers, body, self._version, self._keep_alive, {})
        )

    def _check_head(self) -> None:
        limits, headers = self._limits, self._headers
        if len(headers) > limits.max_headers:
            raise HeadTooLarge(f"There are more than {limits.max_headers} headers.")
        # Summed only where it may matter.
        if self._fed + self._feeding > limits.max_head_bytes:
            size = len(self._target) + sum(len(name) + len(value) for name, value in headers)
            if size > limits.max_head_bytes:
                raise HeadTooLarge(f"The headers are larger than {limits.max_head_bytes} bytes.")

    def _check_fields(self, fields: dict[bytes, bytes]) -> None:
        host = fields.get(b"host")
        if host is None:
            if self._version == "1.1":
                raise Malformed("The request has no Host header.")
        elif not is_host(host):
            raise Malformed("The request's Host header is not valid.")
        elif len(fields) != len(self._headers) and sum(name == b"host" for name, _ in self._headers) > 1:
            raise Malformed("The request has several Host headers.")
        coding = fields.get(b"transfer-encoding")
        self._chunked = coding is not None
        if coding is not None:
            self._check_coding(coding)
        length = fields.get(b"content-length")
        if length is not None and (len(length) > MAX_DIGITS or int(length) > self._limits.max_body_bytes):
            raise BodyTooLarge(self._limits.max_body_bytes)
        expectation = fields.get(b"expect")
        if expectation is not None and self._version == "1.1":
            if expectation.lower() != b"100-continue":
                raise ExpectationFailed("The only expectation that can be met is 100-continue.")
            self.expects_continue = self._chunked or length not in (None, b"0")

    def _check_coding(self, coding: bytes) -> None:
        if self._version == "1.0":
            raise Malformed("HTTP/1.0 has no Transfer-Encoding.")
        if coding.lower() != b"chunked":
            raise NotImplementedHere("The only transfer coding that can be read is chunked.")


@lru_cache(256)
def split_target(target: bytes) -> tuple[str, bytes, bytes]:
    """Path, raw path and query of a request's target: `/path?query`, `http://host/path?query` or `*`. Raises
    Malformed."""
    if b"#" in target:
        raise Malformed("The request's URL has a fragment.")
    if not target.startswith((b"/", b"*")):
        _, _, rest = target.partition(b"://")
        at = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
        target = rest[at:] if rest[at:].startswith(b"/") else b"/" + rest[at:]
    raw_path, _, query = target.partition(b"?")
    return unquote_to_bytes(raw_path).decode("utf-8", "replace"), raw_path, query


@lru_cache(256)
def is_host(value: bytes) -> bool:
    """Whether `value` has only characters of a host and a port."""
    return HOST.fullmatch(value) is not None


def _told(error: httptools.HttpParserError) -> ApiError:
    match error:
        case httptools.HttpParserCallbackError(__context__=ApiError() as ours):
            return ours
        case httptools.HttpParserCallbackError():
            raise error
        case httptools.HttpParserInvalidMethodError():
            return NotImplementedHere("The request's method is unknown.")
    reason = str(error)
    return VersionUnknown() if reason in OTHER_VERSION else Malformed(f"This is not valid HTTP: {reason}.")
