"""What the engine is told to do, and what it tells of what it saw: shared by the process and its handle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import ConfigDict

CONFIG = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class End(StrEnum):
    """How an answer ends."""

    WHOLE = "as it should"
    CUT = "the connection is closed"
    RESET = "the connection is reset"
    STALL = "nothing more comes, and the connection stays open"
    MID_EVENT = "the connection is closed within an event"
    MALFORMED = "one event is not JSON; the rest is as it should be"
    NO_DONE = "no [DONE], but else as if it were complete"
    ERROR = "the engine's own error: an event and [DONE] in a stream, else a 500"
    FILTER = "finish_reason content_filter"


class Framing(StrEnum):
    """How the client knows where the answer ends."""

    LENGTH = "content-length"
    CHUNKED = "transfer-encoding: chunked"
    UNTIL_CLOSE = "the end of the connection"


class Closing(StrEnum):
    """What becomes of the connection after a whole answer."""

    KEEP = "it stays open"
    ANNOUNCED = "closed, after `connection: close`"
    SILENT = "closed at once, unannounced"
    ON_NEXT = "closed by the next request that arrives on it, unanswered"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request. Fields combine; the default is an answer without any fault."""

    __pydantic_config__ = CONFIG

    only: str = ""
    """End of the path that it applies to; other requests don't use it up."""
    status: int | None = None
    """An error of this status instead of an answer."""
    headers: tuple[tuple[str, str], ...] = ()
    """More of the head."""
    page: str | None = None
    """HTML instead of the engine's JSON, as from a proxy."""
    head_after_s: float = 0
    """Seconds before the head."""
    first_token_s: float | None = None
    """Seconds before the first token; streams send their head before. None: the site's own."""
    token_s: float | None = None
    """Seconds between tokens. None: the site's own."""
    end: End = End.WHOLE
    after: int | None = None
    """Tokens before that end, rounded up to whole events; None: before the head (for NO_DONE, at the very end)."""
    framing: Framing | None = None
    """None: streams are chunked, other answers have a length."""
    closing: Closing = Closing.KEEP
    interim: int = 0
    """Responses of status 103 before the final one."""
    gzip: bool = False
    """Whatever the request accepts."""
    comments: bool = False
    """An SSE comment before every event."""
    padding: int = 0
    """Bytes by which the first JSON object is longer."""
    piece: int | None = None
    """Bytes of each write. None: events whole."""


def too_many(retry_after: str | None = None) -> Fault:
    """429, with `Retry-After` in seconds or as a date."""
    return Fault(status=429, headers=(("retry-after", retry_after),) if retry_after else ())


RESET = Fault(end=End.RESET)
CLOSED = Fault(end=End.CUT)
NEVER_ANSWERS = Fault(end=End.STALL)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the site is, until told otherwise."""

    __pydantic_config__ = CONFIG

    otherwise: Fault = Fault()
    """For requests without a planned fault."""
    first_token_s: float = 0
    token_s: float = 0
    tokens_per_event: int = 1
    """More than one: speculative decoding."""
    max_num_seqs: int = 8
    """Requests that run at once; the others wait."""
    max_model_len: int = 4096
    canonical: bool = False
    """The model says only what the tokenizer would split in the same way, so that text can be continued exactly."""
    refuses_continuation: bool = False
    """400 for `continue_final_message` and for prompts of token ids."""
    state: Fault = Fault()
    """For `/fleet/state`."""
    state_age_s: float = 0
    """By which the state's own time lies behind."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Fields of every placement in the state, true or not."""
    drain_s: float | None = None


@dataclass(frozen=True, slots=True)
class Flapping:
    """The site goes down and up by turns, and stays up in the end. All in seconds."""

    __pydantic_config__ = CONFIG

    down_s: float
    up_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived, and what became of it."""

    __pydantic_config__ = CONFIG

    number: int
    connection: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    fault: Fault
    status: int | None = None
    outcome: str = "running"
    """`answered` whole, `broken` off as planned or with the whole site, or `left`: the client went away."""
    tokens: int = 0
    """Tokens of the answer that were written to the connection."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the site saw since it was told to forget."""

    __pydantic_config__ = CONFIG

    requests: tuple[Received, ...]
    """The last 1000; bodies up to 1 MiB. State readings are counted apart, here and below."""
    paths: Mapping[str, int]
    """Requests by path."""
    left: int
    """Requests whose client went away before the end."""
    tokens: int
    """Tokens written."""
    running: int
    waiting: int
    most_running: int
    connections: int
    """Open now."""
    connections_opened: int
    state_readings: int
