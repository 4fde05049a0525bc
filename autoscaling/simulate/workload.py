"""Other workloads made of a trace: faster, shorter, bound to sites. What is drawn depends on the seed alone."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autoscaling.simulate.traces import Request

DAY_S = 86_400.0


def scaled(requests: Sequence[Request], rate: float = 1.0, seed: int = 0) -> tuple[Request, ...]:
    """As many requests per second times `rate`, in the same time: each is repeated, or left out, at random. Repetitions
    come within a second of the original, and share no prefix with it."""
    rng = random.Random(seed)
    made = []
    for request in requests:
        copies = math.floor(rate) + (rng.random() < rate % 1)
        for copy in range(copies):
            moved = request if copy == 0 else replace(request, at=request.at + rng.random())
            made.append(
                moved if copy == 0 else replace(moved, blocks=tuple((copy, b).__hash__() for b in moved.blocks))
            )
    return tuple(sorted(made, key=lambda request: request.at))


def within(requests: Sequence[Request], seconds: float) -> tuple[Request, ...]:
    """Those of the first so many seconds."""
    return tuple(request for request in requests if request.at < seconds)


def stretched(requests: Sequence[Request], factor: float) -> tuple[Request, ...]:
    """The same requests in `factor` times the time."""
    return tuple(replace(request, at=request.at * factor) for request in requests)


def pinned(requests: Sequence[Request], shares: Mapping[str, float], seed: int = 0) -> tuple[Request, ...]:
    """A share of the requests, by site, may be served there only; the rest anywhere. No trace says where its requests
    come from, so what is made like this is derived: say so beside its figures."""
    rng = random.Random(seed)
    sites = [*shares, None]
    weights = [*shares.values(), max(0.0, 1 - sum(shares.values()))]
    drawn = rng.choices(sites, weights, k=len(requests))
    return tuple(replace(request, only_site=site) for request, site in zip(requests, drawn, strict=True))


def for_model(requests: Sequence[Request], model: str) -> tuple[Request, ...]:
    """Those that name no model ask for this one."""
    return tuple(request if request.model else replace(request, model=model) for request in requests)


def daily(
    seconds: float, mean_rate: float, swing: float, period_s: float = DAY_S, seed: int = 0
) -> tuple[Request, ...]:
    """A synthetic workload: Poisson arrivals whose rate swings around `mean_rate` (requests/s) by the share `swing`
    over each `period_s`, lengths log-normal around a chat's."""
    rng = random.Random(seed)
    made = []
    at = 0.0
    most = mean_rate * (1 + swing)
    while (at := at + rng.expovariate(most)) < seconds:
        rate = mean_rate * (1 - swing * math.cos(2 * math.pi * at / period_s))
        if rng.random() * most < rate:
            prompt = max(1, min(8192, round(rng.lognormvariate(6.6, 0.9))))
            output = max(1, min(1024, round(rng.lognormvariate(5.0, 0.8))))
            made.append(Request(at, prompt, output))
    return tuple(made)
