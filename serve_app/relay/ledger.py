"""The token ids of a stream, as the engine wrote them: for streams that can go on by nothing else."""

from serve_app.relay.journal import Delivered, Journal, take_all

LATEST = 16
"""Blocks of the latest events that are kept as they came: there it shows whether the last ids have had their text."""
TRIM_AT = 32
MAX_BLOCK_BYTES = 2**12
MANY_PIECES = 512


class Ledger:
    """Append-only. Beside the ids there is only what the first and the latest events say."""

    __slots__ = ("_first", "_ids", "_latest", "_spoiled")

    def __init__(self) -> None:
        self._first = b""
        self._ids: list[bytes] = []
        self._latest: list[bytes] = []
        self._spoiled = False

    def begin(self, event: bytes) -> None:
        """The first one, in which is what the others have in common."""
        self._first = event

    def add(self, events: bytes, ids: list[bytes]) -> None:
        """Whole events, and the lists of ids in them."""
        self._ids += ids
        latest = self._latest
        latest.append(events if len(events) < MAX_BLOCK_BYTES else events[-MAX_BLOCK_BYTES:])
        if len(latest) > TRIM_AT:
            del latest[:-LATEST]
            if len(self._ids) > MANY_PIECES:
                self._ids = [b",".join(self._ids)]

    def spoil(self) -> None:
        """Some tokens came without ids."""
        self._spoiled = True

    def tokens(self) -> tuple[int | None, int]:
        """Of the prompt, if it is known, and of the answer."""
        first = self._beginning()
        prompt = first.prompt_ids
        ids = sum(piece.count(b",") + 1 for piece in self._ids if piece)
        return None if prompt is None else len(prompt), len(first.ids) + ids

    def journal(self) -> Journal:
        """To go on with. Of the text only the end is known."""
        delivered, end = self._beginning(), Delivered()
        for block in self._latest:
            # One that was shortened begins within an event.
            take_all(end, block if block.startswith(b"data: ") else block[block.find(b"\n\n") + 2 :])
        numbers = b",".join(self._ids).replace(b" ", b"").split(b",")
        delivered.ids.extend(int(number) for number in numbers if number)
        if self._latest:
            delivered.settled = len(delivered.ids) - len(end.ids) + end.settled
            delivered.events = delivered.settled_events = len(delivered.ids)
            delivered.pieces, delivered.all_text = end.pieces, False
            delivered.finish_reason, delivered.oddity = end.finish_reason, delivered.oddity or end.oddity
            delivered.usage, delivered.usage_sent = end.usage, end.usage_sent
        delivered.exact = not self._spoiled
        return Journal(delivered)

    def _beginning(self) -> Delivered:
        delivered = Delivered()
        take_all(delivered, self._first)
        return delivered
