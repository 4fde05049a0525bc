"""The goals, and which of them the figures meet."""

import math
from collections.abc import Callable, Mapping

from bench.goals import Goal
from bench.router.figures import Figures

TTFT_TOLERANCE_MS = 0.05
"""Two runs of one contender differ by as much."""


def goals(measured: Mapping[str, Figures], choose_us: float | None) -> list[Goal]:
    """`measured` is by contender. `choose_us` is the time of one choice among 100 sites, microseconds."""
    ours = measured.get("rayfleet")

    def value(read: Callable[[Figures], float | None]) -> float | None:
        return read(ours) if ours else None

    def ratio(peer: str, read: Callable[[Figures], float]) -> float | None:
        """Ours by the peer's."""
        theirs = measured.get(peer)
        return read(ours) / read(theirs) if ours and theirs and math.isfinite(read(theirs)) else None

    vllm = measured.get("vllm-router")
    cpu = ratio("vllm-router", _request_cpu)
    litellm = ratio("litellm", _request_cpu)
    first_byte = value(lambda one: _first_byte(one) - _first_byte(vllm)) if vllm else None
    return [
        Goal("request_cpu_by_vllm_router", cpu, 0.7, at_most=True),
        Goal("request_cpu_by_vllm_router_stretch", cpu, 0.45, at_most=True, stretch=True),
        Goal(
            "requests_per_s_by_vllm_router",
            ratio("vllm-router", lambda one: one.short.requests_per_s),
            1.5,
            at_most=False,
        ),
        Goal(
            "flat_out_chunk_cpu_by_haproxy",
            ratio("haproxy", lambda one: one.flat_out.cpu_s_per_100k_events),
            1.0,
            at_most=True,
        ),
        Goal(
            "open_streams_chunk_cpu_by_vllm_router",
            ratio("vllm-router", lambda one: one.open_streams.window.cpu_s_per_100k_events),
            0.85,
            at_most=True,
        ),
        Goal("added_p50_ms", value(lambda one: one.latency.added_p50 if one.latency else None), 0.5, at_most=True),
        Goal("added_first_byte_p50_ms_beyond_vllm_router", first_byte, TTFT_TOLERANCE_MS, at_most=True),
        Goal("litellm_request_cpu_by_ours", 1 / litellm if litellm else None, 100, at_most=False),
        Goal("kb_per_open_stream", value(lambda one: one.open_streams.kb_per_stream), 60, at_most=True),
        Goal("choose_among_100_us", choose_us, 50, at_most=True),
    ]


def _request_cpu(figures: Figures) -> float:
    return figures.short.cpu_ms_per_request


def _first_byte(figures: Figures) -> float:
    return figures.first_byte.added_p50 if figures.first_byte else math.inf
