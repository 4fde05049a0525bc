"""Server-sent events, as far as a relay must know them."""

MAX_EVENT_BYTES = 2**20
DONE = b"data: [DONE]"


class EventStream:
    """Lets whole events pass, unchanged, so that a client never holds half of one when the stream is cut."""

    def __init__(self) -> None:
        self._rest = b""
        self._tail = b""

    def feed(self, chunk: bytes) -> bytes:
        """The events that are whole now."""
        data = self._rest + chunk if self._rest else chunk
        end = _end_of_events(data)
        # An event beyond the bound passes in pieces: memory per stream stays bounded.
        whole, self._rest = (data[:end], data[end:]) if end or len(data) <= MAX_EVENT_BYTES else (data, b"")
        self._tail = whole[-32:] or self._tail
        return whole

    @property
    def finished(self) -> bool:
        """Whether the last event was the one that ends a stream in OpenAI's protocol."""
        return not self._rest and self._tail.rstrip().endswith(DONE)


def _end_of_events(data: bytes) -> int:
    for blank_line in (b"\n\n", b"\r\n\r\n"):
        at = data.rfind(blank_line)
        if at >= 0:
            return at + len(blank_line)
    return 0
