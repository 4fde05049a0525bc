"""One request, as it is counted, billed and logged."""

from enum import StrEnum

import msgspec


class Outcome(StrEnum):
    """What became of a request."""

    OK = "ok"
    REFUSED = "refused"
    """The engine said that the client made a mistake."""
    CUT = "cut"
    CLIENT_LEFT = "client_left"
    FAILED = "failed"
    """No site answered, or none could be asked."""
    HELD_OUT = "held_out"
    """Every allowed site was full, and stayed so until the deadline, or the queue was full too."""


class Record(msgspec.Struct, kw_only=True, gc=False):
    """Filled in while the request is served, and left alone from then on. As JSON, one line of the request log."""

    request_id: str
    started: float
    """Seconds since the epoch."""
    key: str = ""
    """Its name; never the secret."""
    tenant: str = ""
    model: str
    release: str = ""
    site: str = ""
    """Or hosted target: the one that answered, else the one tried last."""
    pool: str = ""
    market: str = ""
    stream: bool = False
    attempts: int = 0
    continuations: int = 0
    outcome: Outcome = Outcome.FAILED
    status: int = 0
    """HTTP status that the client was sent; 0 for none."""
    tokens_in: int = 0
    """Of the prompt, with the cached ones."""
    tokens_out: int = 0
    tokens_cached: int = 0
    usd: float = 0.0
    queue_s: float = 0.0
    """Held back here."""
    ttft_s: float | None = None
    """From the request to the first byte of its answer's body, failed attempts included."""
    tpot_s: float | None = None
    """Seconds per token of the answer after its first."""
    duration_s: float = 0.0
