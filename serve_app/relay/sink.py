"""The client's side of one answer. Each door of the ingress has its own."""

from collections.abc import Iterable
from typing import Protocol


class Sink(Protocol):
    """Callbacks only: nothing here waits. A slow client is told of by the door, which pauses the exchange."""

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]], length: int | None) -> None:
        """Without a length the body is chunked."""

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None: ...

    def abort(self) -> None:
        """Break the connection off, so that the client notices that its answer is not whole."""
