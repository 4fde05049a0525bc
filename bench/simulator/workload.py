"""What both are asked: when, how long, and with which beginnings."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from autoscaling.simulate.traces import Request
from bench.simulator.engine import MAX_MODEL_LEN
from serve_app.cli.calibrate import WORDS

SHORTER = 4
"""Times: lengths of real traces are for contexts of several thousand tokens."""
MOST_OUTPUT = 120
MOST_PROMPT = MAX_MODEL_LEN - MOST_OUTPUT - 64
"""A prompt's words do not give its tokens exactly."""
LEAST_OUTPUT = 4
LEAST_PROMPT = 16
FAMILIES = 4
SHARED_BLOCKS = 2
MARGIN_TOKENS = 24
"""Beyond these, so that they are whole, though words do not give tokens exactly."""
BURST_RATE, BURST_S, CALM_S = 4.0, 0.5, 1.5
"""In bursts so many times the rate between them, and how long each is, when the mean rate is 10 per second."""


def bursts(count: int, rng: random.Random) -> list[Request]:
    """Poisson arrivals, now fast, now slow; lengths log-normal around those of Azure's conversations."""
    made: list[Request] = []
    at = phase_ends = 0.0
    rate, calm = 0.0, False
    while len(made) < count:
        if at >= phase_ends:
            calm = not calm
            rate = 10 * (1 if calm else BURST_RATE) * (CALM_S + BURST_S) / (CALM_S + BURST_RATE * BURST_S)
            phase_ends = at + rng.expovariate(1 / (CALM_S if calm else BURST_S))
        at += rng.expovariate(rate)
        prompt, output = rng.lognormvariate(6.7, 0.8), rng.lognormvariate(5.1, 0.7)
        made.append(Request(at, math.ceil(prompt), math.ceil(output)))
    return made


def capped(requests: Sequence[Request]) -> list[Request]:
    """With lengths that the engine takes."""
    return [
        replace(
            each,
            prompt_tokens=min(MOST_PROMPT, max(LEAST_PROMPT, each.prompt_tokens // SHORTER)),
            output_tokens=min(MOST_OUTPUT, max(LEAST_OUTPUT, each.output_tokens // SHORTER)),
        )
        for each in requests
    ]


def at_rate(requests: Sequence[Request], per_second: float) -> list[Request]:
    """The same pattern of arrivals, from 0 on."""
    began, ended = requests[0].at, requests[-1].at
    factor = len(requests) / per_second / (ended - began)
    return [replace(each, at=(each.at - began) * factor) for each in requests]


class Texts:
    """Prompts of about as many tokens, with words nobody has used. Where beginnings are shared, these are new too."""

    def __init__(self, tokens_per_word: float, shared: bool, block_tokens: int, rng: random.Random):
        self._tokens_per_word = tokens_per_word
        self._rng = rng
        self._shared_tokens = SHARED_BLOCKS * block_tokens + MARGIN_TOKENS
        self._beginnings = [self._text(self._shared_tokens) for _ in range(FAMILIES)] if shared else []

    def write(self, tokens: int) -> tuple[str, tuple[int, ...]]:
        """A prompt, and the blocks that others have too. Those with a shared beginning may be longer than `tokens`."""
        if not self._beginnings:
            return self._text(tokens), ()
        family = self._rng.randrange(FAMILIES)
        rest = self._text(max(LEAST_PROMPT, tokens - self._shared_tokens))
        blocks = tuple(range(family * SHARED_BLOCKS, (family + 1) * SHARED_BLOCKS))
        return f"{self._beginnings[family]} {rest}", blocks

    def _text(self, tokens: int) -> str:
        return " ".join(self._rng.choices(WORDS, k=max(1, round(tokens / self._tokens_per_word))))
