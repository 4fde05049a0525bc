"""How many replicas a placement will need when one that is asked for now is ready: from its own past, and nothing else.

Two rules, each off until it has enough to go by, and the higher answer counts. The trend: requests that have risen
steadily for minutes go on rising for the start-up delay. The season: what was needed at this time on past days is
needed again, scaled by how the last hour compares with the same hour then.
"""

import math
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, median, median_low

from clusters.scaling import AutoscalingSpec

SHORT_S = 30
"""Length of the intervals that the trend is drawn through."""
TREND_INTERVALS = 20
TREND_MINIMUM = 10
RISING_SHARE = 0.75
"""Of all pairs of intervals, the later one must be higher in this share before it counts as a trend. Chance alone gets
there once in about a thousand times."""
TREND_MOST = 1.5
"""A trend foretells at most this multiple of the present load: queues grow as steadily, while replicas start."""

LONG_S = 300
"""Length of the intervals in which days are compared."""
DAY = 86_400 // LONG_S
DAYS = 7
LOOK_BACK = 3600 // LONG_S
LOOK_BACK_MINIMUM = LOOK_BACK // 2
SEASON_MOST = 2.0
"""A busier day than usual foretells at most this multiple of the usual one."""


@dataclass(frozen=True, slots=True)
class Series:
    """One value per interval up to interval number `end`, None where nothing was known."""

    end: int = 0
    values: tuple[float | None, ...] = ()

    def put(self, number: int, value: float, length: int) -> "Series":
        """Keeps the higher of two values for one interval; what comes after it, by a clock set back, is dropped."""
        if not self.values:
            return Series(number, (value,))
        gap = number - self.end
        if gap <= 0:
            kept = self.values[: len(self.values) + gap]
            same = kept[-1] if kept else None
            return Series(number, (*kept[:-1], value if same is None else max(same, value)))
        return Series(number, (*self.values[gap - length :], *(None,) * min(gap - 1, length - 1), value)[-length:])

    def at(self, number: int) -> float | None:
        index = len(self.values) - 1 - (self.end - number)
        return self.values[index] if 0 <= index < len(self.values) else None


@dataclass(frozen=True, slots=True)
class Open:
    """The present short interval."""

    number: int
    total: float
    count: int


@dataclass(frozen=True, slots=True)
class History:
    """A placement's load in requests: means of the last minutes, and of each 5 minutes of the last days the highest."""

    open: Open | None = None
    short: Series = Series()
    long: Series = Series()

    def add(self, load: float, now: float) -> "History":
        number = int(now // SHORT_S)
        if self.open is None:
            return History(Open(number, load, 1), self.short, self.long)
        if self.open.number == number:
            return History(Open(number, self.open.total + load, self.open.count + 1), self.short, self.long)
        closed = round(self.open.total / self.open.count, 2)
        return History(
            Open(number, load, 1),
            self.short.put(self.open.number, closed, TREND_INTERVALS),
            self.long.put(self.open.number * SHORT_S // LONG_S, closed, DAY * (DAYS + 1)),
        )


@dataclass(frozen=True, slots=True)
class Floor:
    """No fewer replicas than this, and why."""

    replicas: int
    reason: str


NO_FLOOR = Floor(0, "")


def floor(history: History, limits: AutoscalingSpec, now: float) -> Floor:
    """For the replicas that would be ready `start_up_s` from now."""
    guesses = (_trend(history.short, limits.start_up_s, now), _season(history.long, limits.start_up_s, now))
    foreseen = [guess for guess in guesses if guess is not None]
    if not foreseen:
        return NO_FLOOR
    load, reason = max(foreseen)
    # A trace of load is no reason to keep a replica.
    return Floor(max(0, math.ceil(load / limits.target_queue_depth - limits.scale_down_margin)), reason)


def _trend(short: Series, ahead_s: float, now: float) -> tuple[float, str] | None:
    """Theil and Sen's line: the median slope of all pairs, which neither a step nor an outlier tilts."""
    points = [(i, value) for i, value in enumerate(short.values) if value is not None]
    since_last_s = now - (short.end + 0.5) * SHORT_S
    if len(points) < TREND_MINIMUM or since_last_s > 2 * SHORT_S:
        return None
    slopes = [(b - a) / (j - i) for (i, a), (j, b) in combinations(points, 2)]
    if sum(slope > 0 for slope in slopes) < RISING_SHARE * len(slopes):
        return None
    slope, last = median(slopes), len(short.values) - 1
    latest = median(value + slope * (last - i) for i, value in points)
    load = min(latest + slope * (since_last_s + ahead_s) / SHORT_S, TREND_MOST * latest)
    return load, f"{load:.1f} requests in {ahead_s:g} s, rising by {slope * 60 / SHORT_S:.1f} a minute"


def _season(long: Series, ahead_s: float, now: float) -> tuple[float, str] | None:
    """The lower median of what past days foretell: one odd day is not repeated."""
    today = int(now // LONG_S)
    soon = range(today, int((now + ahead_s + SHORT_S) // LONG_S) + 1)
    days = [guess for day in range(1, DAYS + 1) if (guess := _like(long, today, soon, day * DAY)) is not None]
    if not days:
        return None
    load = median_low(days)
    past = "yesterday" if len(days) == 1 else f"on {len(days)} past days"
    return load, f"{load:.1f} requests, as {past} at this time"


def _like(long: Series, today: int, soon: range, ago: int) -> float | None:
    """The highest load in the intervals `soon` of that past day, scaled by today's last hour over that hour then."""
    then = [value for number in soon if (value := long.at(number - ago)) is not None]
    pairs = [
        (value, past)
        for number in range(today - LOOK_BACK, today)
        if (value := long.at(number)) is not None and (past := long.at(number - ago)) is not None
    ]
    if not then or len(pairs) < LOOK_BACK_MINIMUM:
        return None
    now_mean, past_mean = mean(value for value, _ in pairs), mean(past for _, past in pairs)
    ratio = min(now_mean / past_mean, SEASON_MOST) if past_mean > 0 else 1.0
    return max(then) * ratio
