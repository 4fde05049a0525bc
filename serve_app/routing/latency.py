"""The router's own measurements of how fast places are, at the loads at which requests were sent to them."""

import math
from bisect import bisect_right
from itertools import accumulate

from serve_app.routing.leases import Place

OVERHEAD_TOKENS = 200
"""What every request costs a prefill beside its tokens, counted in tokens."""
PRIOR_RATE = 0.0002
"""Seconds per prefill token where nothing of the model was ever measured."""
PRIOR_SECONDS_PER_TOKEN = 0.02
PRIOR_OUTPUT_TOKENS = 256
PRIOR_DEVIATION_S = 0.5

BANDS = (0.25, 0.5, 0.75, 1.0)
"""Requests per slot that divide the bands in which prefill is measured."""
WEIGHT = 0.2
"""Of the newest measurement in a moving average."""
MIN_INTERVAL_S = 0.01
"""Between two measurements of a place: more of them would say nothing new."""
MAX_AGE_S = 60.0
"""An older measurement says nothing of the present."""


class _Pace:
    """Of one place."""

    __slots__ = ("deviation_s", "latest_at", "measured_at", "rates", "seconds_per_token", "token_at")

    def __init__(self) -> None:
        self.rates = [0.0] * (len(BANDS) + 1)
        """Seconds per prefill token, by band."""
        self.measured_at = [-math.inf] * (len(BANDS) + 1)
        self.latest_at = -math.inf
        self.deviation_s = PRIOR_DEVIATION_S
        self.seconds_per_token = 0.0
        self.token_at = -math.inf


class _Habits:
    """Of one model, wherever it runs: what is assumed of a place that was not measured."""

    __slots__ = ("best_at", "best_rate", "output_tokens", "seconds_per_token")

    def __init__(self) -> None:
        self.best_rate = PRIOR_RATE
        self.best_at = -math.inf
        self.seconds_per_token = PRIOR_SECONDS_PER_TOKEN
        self.output_tokens = float(PRIOR_OUTPUT_TOKENS)


class Latency:
    """Moving averages. What is not measured counts as unknown after a minute."""

    def __init__(self) -> None:
        self._paces: dict[Place, _Pace] = {}
        self._habits: dict[str, _Habits] = {}

    def wants(self, site: str, model: str, now: float) -> bool:
        """Whether another first token would say anything new."""
        pace = self._paces.get((site, model))
        return pace is None or now - pace.latest_at >= MIN_INTERVAL_S

    def first_token(
        self, site: str, model: str, seconds: float, uncached_tokens: int, load: float, now: float, beside_s: float = 0
    ) -> None:
        """A first token came after `seconds`, of which `beside_s` were expected to go into the round trip and the
        queue. `load` is that of the choice, in requests per slot."""
        pace = self._pace(site, model)
        pace.latest_at = now
        tokens = OVERHEAD_TOKENS + uncached_tokens
        rate = max(seconds - beside_s, 0.1 * seconds) / tokens
        band = bisect_right(BANDS, load)
        if now - pace.measured_at[band] <= MAX_AGE_S:
            before = pace.rates[band]
            pace.deviation_s += WEIGHT * (abs(rate - before) * tokens - pace.deviation_s)
            rate = before + WEIGHT * (rate - before)
        pace.rates[band] = rate
        pace.measured_at[band] = now
        for lower in range(band):
            # The latest word: an emptier place is not slower.
            pace.rates[lower] = min(pace.rates[lower], rate)
        habits = self._habit(model)
        if rate <= habits.best_rate or now - habits.best_at > MAX_AGE_S:
            habits.best_rate, habits.best_at = rate, now

    def finished(self, site: str, model: str, output_tokens: int, seconds_after_first: float, now: float) -> None:
        """An answer ended so long after its first token."""
        habits = self._habit(model)
        habits.output_tokens += WEIGHT * (output_tokens - habits.output_tokens)
        if output_tokens < 2:
            return
        seconds = seconds_after_first / (output_tokens - 1)
        habits.seconds_per_token += WEIGHT * (seconds - habits.seconds_per_token)
        pace = self._pace(site, model)
        known = now - pace.token_at <= MAX_AGE_S
        pace.seconds_per_token += (WEIGHT if known else 1.0) * (seconds - pace.seconds_per_token)
        pace.token_at = now

    def rates(self, site: str, model: str, now: float) -> tuple[float, ...] | None:
        """Seconds per prefill token by band, never less than in a lower band. A band without a measurement is taken to
        be like the nearest lower one that has one, else the nearest higher one. None: nothing is measured."""
        pace = self._paces.get((site, model))
        if pace is None:
            return None
        oldest = now - MAX_AGE_S
        known = [rate if at >= oldest else 0.0 for rate, at in zip(pace.rates, pace.measured_at, strict=True)]
        if not any(known):
            return None
        known[0] = next(filter(None, known))
        return tuple(accumulate(known, max))

    def best_rate(self, model: str) -> float:
        """The model's lowest of the last minute, or else what is assumed."""
        habits = self._habits.get(model)
        return PRIOR_RATE if habits is None else habits.best_rate

    def deviation_s(self, site: str, model: str) -> float:
        """Mean distance of the seconds to the first token from what was expected."""
        pace = self._paces.get((site, model))
        return PRIOR_DEVIATION_S if pace is None else pace.deviation_s

    def seconds_per_token(self, site: str, model: str, now: float) -> float:
        """Of the answer, after the first token: the place's own, else the model's anywhere, else what is assumed."""
        pace = self._paces.get((site, model))
        if pace is not None and now - pace.token_at <= MAX_AGE_S:
            return pace.seconds_per_token
        habits = self._habits.get(model)
        return PRIOR_SECONDS_PER_TOKEN if habits is None else habits.seconds_per_token

    def output_tokens(self, model: str) -> float:
        """Mean of an answer."""
        habits = self._habits.get(model)
        return PRIOR_OUTPUT_TOKENS if habits is None else habits.output_tokens

    def _pace(self, site: str, model: str) -> _Pace:
        place = (site, model)
        pace = self._paces.get(place)
        if pace is None:
            pace = self._paces[place] = _Pace()
        return pace

    def _habit(self, model: str) -> _Habits:
        habits = self._habits.get(model)
        if habits is None:
            habits = self._habits[model] = _Habits()
        return habits
