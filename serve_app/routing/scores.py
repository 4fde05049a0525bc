"""The one formula: what a place costs a request, less being better. It is linear in the request's own sizes, so a
quote becomes an offer of coefficients once, and a request's score is a few multiplications."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from serve_app.routing.filters import Rejection
from serve_app.routing.latency import OVERHEAD_TOKENS
from serve_app.routing.quotes import Quote

RANK = 1e6
"""Between two ranks: more than anything that a score holds beside them."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What a policy makes of each term."""

    tokens: float = 0.0
    """Per USD of tokens."""
    egress: float = 0.0
    """Per USD of egress."""
    late: float = 0.0
    """Per second to the first token beyond `target_s`."""
    target_s: float = 0.0
    seconds: float = 0.0
    """Per second to the first token."""
    load: float = 0.0
    """Per request and slot."""
    round_trip: float = 0.0
    """Per second of the round trip."""


class Size(NamedTuple):
    """Of a request; of its answer what is expected."""

    prompt_tokens: int
    output_tokens: float
    answer_bytes: float


Offer = tuple[float, float, float, float, float, float, float, Quote | Rejection]
"""fixed, per uncached prompt token, per token of the answer, per byte of the answer, per second late,
seconds late before the prompt is read, seconds per uncached prompt token; and what they come from. A plain tuple: it is
unpacked for every place and request."""


def offer(standing: Quote | Rejection, weights: Weights, rank: int = 0) -> Offer:
    """A rejected place costs infinitely much."""
    if isinstance(standing, Rejection):
        return (math.inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, standing)
    supply, load, queue_s, rate, usd_per_slot_s = standing
    candidate = supply.candidate
    beside_s = supply.round_trip_s + queue_s + rate * OVERHEAD_TOKENS
    prefill_usd = usd_per_slot_s * candidate.prefill_slots * rate
    return (
        rank * RANK
        + weights.tokens * prefill_usd * OVERHEAD_TOKENS
        + weights.seconds * beside_s
        + weights.load * load
        + weights.round_trip * supply.round_trip_s,
        weights.tokens * (prefill_usd + candidate.usd_per_input_token) + weights.seconds * rate,
        weights.tokens * (usd_per_slot_s * supply.seconds_per_token + candidate.usd_per_output_token),
        weights.egress * candidate.usd_per_byte,
        weights.late,
        beside_s - weights.target_s,
        rate,
        standing,
    )


def scores(offers: Iterable[Offer], size: Size, uncached_tokens: int) -> list[float]:
    """Of one request at each place. `uncached_tokens` are those of the prompt that no cache there has."""
    _, output_tokens, answer_bytes = size
    return [
        fixed
        + per_prompt * uncached_tokens
        + per_output * output_tokens
        + per_byte * answer_bytes
        + (per_late * late_s if (late_s := late + rate * uncached_tokens) > 0.0 else 0.0)
        for fixed, per_prompt, per_output, per_byte, per_late, late, rate, _ in offers
    ]
