"""What passes between the door and those who answer. All of it is callbacks on one event loop."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec


class Request(msgspec.Struct, frozen=True, gc=False):
    """A whole request."""

    method: str
    path: str
    """Percent-decoded, without the query."""
    raw_path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    """Names are lower-case, values have no white space around them."""
    body: bytes
    version: str
    """`1.1` or `1.0`."""
    keep_alive: bool
    """Whether the client would use the connection again."""
    memo: dict[str, Any]
    """What others made of the head. A client that says the same head again, on the same connection, finds it again."""


class Sink(Protocol):
    """The client's side of one answer. Once the answer has ended, in whichever way, calls do nothing."""

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]], length: int | None) -> None:
        """`headers` has no `connection`, `content-length`, `date` or `transfer-encoding`. Without a length the body is
        chunked. The head leaves together with the first bytes of the body."""

    def write(self, data: bytes) -> None:
        """For an answer without a body (to HEAD, or by its status) `data` is dropped."""

    def finish(self) -> None:
        """An answer that is shorter or longer than its `length` is broken off instead."""

    def abort(self) -> None:
        """Break the connection off, so that the client cannot take what it has for the whole answer. Bytes that were
        written before still go out."""


class Exchange(Protocol):
    """Whoever is answering, as the door sees it."""

    def client_left(self) -> None:
        """The connection is gone, before the answer's end: nobody will read the rest."""

    def pause(self) -> None:
        """The client is slow: `write` no more, if possible."""

    def resume(self) -> None: ...


HotHandler = Callable[[Request, Sink], Exchange]
"""May answer before it returns."""
