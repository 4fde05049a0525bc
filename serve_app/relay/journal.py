"""What a client has of its stream: kept as bytes by reference, read only when the stream must go on elsewhere.

Memory is bounded: from time to time the bytes are reduced to token ids and text.
"""

from array import array
from dataclasses import dataclass, field
from typing import Any

import msgspec

COMPACT_BYTES = 2**14
MAX_PROMPT_IDS = 2**17


class Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw(b"null")


class StreamChoice(msgspec.Struct):
    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"null")
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class Chunk(msgspec.Struct):
    """An event of a chat or text completion, as far as it matters here."""

    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    choices: list[StreamChoice] = []
    usage: dict[str, Any] | None = None
    prompt_token_ids: list[int] | None = None


DECODER = msgspec.json.Decoder(Chunk)


@dataclass(slots=True)
class Delivered:
    """The stream so far, as the client has it."""

    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    prompt_ids: "array[int] | None" = None
    ids: "array[int]" = field(default_factory=lambda: array("I"))
    settled: int = 0
    """Ids of which the text has been delivered for certain: those behind them may be part of a character."""
    exact: bool = True
    """Whether `ids` are all of the tokens."""
    pieces: list[str] = field(default_factory=list)
    all_text: bool = True
    """Whether `pieces` are all of it. Token ids alone may do."""
    events: int = 0
    """All but the role's: about as many as tokens."""
    settled_events: int = 0
    """Those up to the last that had text."""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    usage_sent: bool = False
    """Whether the event with the final usage is among them."""
    oddity: str | None = None
    """What in it could not be continued."""

    def unsettle(self) -> None:
        """Forget tokens whose text has not come: they are generated again."""
        del self.ids[self.settled :]
        self.events = self.settled_events

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        """Of the answer: counted if ids came, else about."""
        return len(self.ids) if self.exact else self.events


class Journal:
    """Append-only. Everything is kept."""

    __slots__ = ("_blocks", "_delivered", "_size")

    def __init__(self, delivered: Delivered | None = None):
        self._blocks: list[bytes] = []
        self._size = 0
        self._delivered = delivered

    def add(self, block: bytes) -> None:
        """Whole events, with token ids if the engine gave them."""
        self._blocks.append(block)
        self._size += len(block)
        if self._size > COMPACT_BYTES:
            self.read()

    def read(self) -> Delivered:
        """Everything so far."""
        delivered = self._delivered = self._delivered or Delivered()
        take_all(delivered, b"".join(self._blocks))
        self._blocks.clear()
        self._size = 0
        return delivered


def take_all(delivered: Delivered, events: bytes) -> None:
    """Read whole events."""
    for event in events.split(b"\n\n"):
        if event.startswith(b"data: {"):
            _take(delivered, event[6:])


def _take(delivered: Delivered, data: bytes) -> None:
    try:
        chunk = DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        delivered.oddity = "an event that can't be read"
        return
    if not delivered.id:
        delivered.id, delivered.object = chunk.id, chunk.object
        delivered.created, delivered.model = chunk.created, chunk.model
    delivered.usage = chunk.usage or delivered.usage
    delivered.usage_sent = delivered.usage_sent or (chunk.usage is not None and not chunk.choices)
    _take_prompt(delivered, chunk.prompt_token_ids)
    for choice in chunk.choices:
        _take_prompt(delivered, choice.prompt_token_ids)
        _take_choice(delivered, choice)


def _take_prompt(delivered: Delivered, ids: list[int] | None) -> None:
    if ids is not None and len(ids) <= MAX_PROMPT_IDS:
        delivered.prompt_ids = array("I", ids)


def _take_choice(delivered: Delivered, choice: StreamChoice) -> None:
    delta = choice.delta
    text = choice.text if delta is None else delta.content
    if text:
        delivered.pieces.append(text)
    if choice.token_ids is not None:
        delivered.ids.extend(choice.token_ids)
        delivered.settled = len(delivered.ids) if text else delivered.settled
    elif text or choice.finish_reason:
        delivered.exact = False
    delivered.events += delta is None or delta.role is None
    delivered.settled_events = delivered.events if text else delivered.settled_events
    delivered.finish_reason = choice.finish_reason or delivered.finish_reason
    delivered.oddity = delivered.oddity or _oddity(choice)


def _oddity(choice: StreamChoice) -> str | None:
    if choice.index:
        return "several choices"
    if bytes(choice.logprobs) != b"null":
        return "log probabilities"
    delta = choice.delta
    if delta is not None and bytes(delta.tool_calls) not in (b"null", b"[]"):
        return "a tool call half way"
    if delta is not None and (delta.reasoning or delta.reasoning_content):
        return "reasoning"
    return "a refusal" if delta is not None and delta.refusal else None


def has_content(events: bytes) -> bool:
    """Whether any of them holds text, or an end, without its token ids."""
    delivered = Delivered()
    take_all(delivered, events)
    return not delivered.exact
