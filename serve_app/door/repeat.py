"""A head that a client says again and again, but for the length of the body: what was parsed once need not be again."""

import re
from typing import Self

from msgspec.structs import replace

from serve_app.door.exchange import Request

LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength:[ \t]*([0-9]{1,15})[ \t]*\r\n")


class Repeat:
    """The latest whole request of a connection, whose head arrived in one piece with its body."""

    __slots__ = ("_after", "_before", "_index", "_limit", "_request")

    def __init__(self, request: Request, before: bytes, after: bytes, limit: int):
        self._request = replace(request, body=b"")
        self._before = before
        """The head, up to the digits of the length,"""
        self._after = after
        """and from there on."""
        self._index = next(n for n, (name, _) in enumerate(request.headers) if name == b"content-length")
        self._limit = limit

    @classmethod
    def of(cls, data: bytes, request: Request, limit: int) -> Self | None:
        """None for requests that are framed in other ways, or come together with others."""
        head = data[: len(data) - len(request.body)]
        found = LENGTH.search(head)
        plain = found is not None and head.endswith(b"\r\n\r\n") and head.count(b"\r\n\r\n") == 1
        names = [name for name, _ in request.headers]
        if found is None or not plain or names.count(b"content-length") != 1:
            return None
        if int(found[1]) != len(request.body) or b"expect" in names or b"upgrade" in names:
            return None
        return cls(request, head[: found.start(1)], head[found.end(1) :], limit)

    def request(self, data: bytes) -> Request | None:
        """The request, if `data` is the same head with another length, and a body of just that length."""
        before, after = self._before, self._after
        if not data.startswith(before):
            return None
        at = len(before)
        end = data.find(b"\r", at, at + 16)
        digits = data[at:end].rstrip(b" \t") if end > at else b""
        if not digits.isdigit() or not data.startswith(after, at + len(digits)):
            return None
        start = at + len(digits) + len(after)
        length = int(digits)
        if len(data) - start != length or length > self._limit:
            return None
        of = self._request
        headers = of.headers.copy()
        headers[self._index] = (b"content-length", digits)
        return Request(
            of.method, of.path, of.raw_path, of.query, headers, data[start:], of.version, of.keep_alive, of.memo
        )
