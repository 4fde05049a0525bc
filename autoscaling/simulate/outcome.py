"""What came of a simulation: one record per request, one use per placement, and their summary."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from autoscaling.simulate.ports import Place


class End(StrEnum):
    """Of a request."""

    OK = "ok"
    REFUSED = "refused"
    """It would not fit into an engine's cache, however empty."""
    HELD_OUT = "held_out"
    """Every site was full until its deadline, or the ingress's queue was."""
    CUT = "cut"
    """Its answer had begun, and could not be finished."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Served:
    """One request."""

    at: float
    site: str
    """That answered last; empty where none did."""
    end: End
    prompt_tokens: int
    output_tokens: int
    """That the client got."""
    cached_tokens: int
    ttft_s: float | None
    tpot_s: float | None
    """Seconds per token after the first."""
    attempts: int
    continuations: int
    held_s: float


@dataclass(frozen=True, slots=True)
class Change:
    """Of a placement's target."""

    at: float
    place: Place
    before: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class Point:
    """Of the course of one placement."""

    at: float
    place: Place
    target: int
    ready: int
    running: int
    waiting: int
    held: int
    """At the ingress, for the model anywhere."""


@dataclass(frozen=True, slots=True)
class SiteUse:
    """What one site was used for."""

    site: str
    gpu_hours: float
    usd: float
    """Of its nodes."""
    usd_egress: float
    worst_queue: int
    """Most requests that waited in its engines at once."""
    interrupted: int
    """Replicas lost to the market."""
    preempted: int
    """Sequences thrown out of a full KV cache, and read anew."""


@dataclass(frozen=True, slots=True)
class Outcome:
    seconds: float
    """From the trace's beginning to the end of its last answer."""
    ttft_target_s: float
    served: tuple[Served, ...]
    """In the order of the trace."""
    sites: tuple[SiteUse, ...]
    changes: tuple[Change, ...]
    course: tuple[Point, ...]
    worst_held: int
    """Most requests that the ingress held at once."""
    worst_queue: int
    """Most that waited at once, in engines and at the ingress."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Of a site, or of all. Seconds are NaN where nothing was measured."""

    name: str
    requests: int
    ok: int
    attainment: float
    """Share of the requests whose first token came within the target; those without one are missed."""
    ttft_p50_s: float
    ttft_p95_s: float
    ttft_p99_s: float
    ttft_mean_s: float
    tpot_p50_s: float
    tpot_p99_s: float
    output_tokens_per_s: float
    cached_share: float
    """Of prompt tokens."""
    gpu_hours: float
    usd: float
    usd_egress: float
    changes_per_hour: float
    worst_queue: int
    interrupted: int
    continued: int
    """Answers that another replica finished."""


def summary(outcome: Outcome) -> Summary:
    """Of all sites together."""
    return _summary("all", outcome, outcome.served, outcome.sites, outcome.changes, outcome.worst_queue)


def site_summaries(outcome: Outcome) -> tuple[Summary, ...]:
    """Requests that no site answered are in none of them."""
    return tuple(
        _summary(
            use.site,
            outcome,
            [served for served in outcome.served if served.site == use.site],
            [use],
            [change for change in outcome.changes if change.place[0] == use.site],
            use.worst_queue,
        )
        for use in outcome.sites
    )


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _summary(
    name: str,
    outcome: Outcome,
    served: Sequence[Served],
    uses: Sequence[SiteUse],
    changes: Sequence[Change],
    worst_queue: int,
) -> Summary:
    ttfts = [one.ttft_s for one in served if one.ttft_s is not None]
    tpots = [one.tpot_s for one in served if one.tpot_s is not None]
    in_time = sum(one.ttft_s is not None and one.ttft_s <= outcome.ttft_target_s for one in served)
    prompt_tokens = sum(one.prompt_tokens for one in served)
    return Summary(
        name=name,
        requests=len(served),
        ok=sum(one.end is End.OK for one in served),
        attainment=in_time / len(served) if served else math.nan,
        ttft_p50_s=percentile(ttfts, 0.5),
        ttft_p95_s=percentile(ttfts, 0.95),
        ttft_p99_s=percentile(ttfts, 0.99),
        ttft_mean_s=sum(ttfts) / len(ttfts) if ttfts else math.nan,
        tpot_p50_s=percentile(tpots, 0.5),
        tpot_p99_s=percentile(tpots, 0.99),
        output_tokens_per_s=sum(one.output_tokens for one in served) / outcome.seconds,
        cached_share=sum(one.cached_tokens for one in served) / prompt_tokens if prompt_tokens else math.nan,
        gpu_hours=sum(use.gpu_hours for use in uses),
        usd=sum(use.usd for use in uses),
        usd_egress=sum(use.usd_egress for use in uses),
        changes_per_hour=len(changes) / (outcome.seconds / 3600),
        worst_queue=worst_queue,
        interrupted=sum(use.interrupted for use in uses),
        continued=sum(one.continuations > 0 for one in served),
    )
