"""The course of a measurement: a calibration, replays at several loads, and a second calibration."""

import itertools
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from autoscaling.simulate.calibration import Batch, Fit, fit
from autoscaling.simulate.engine_model import EngineModel
from autoscaling.simulate.traces import Request
from bench.simulator.engine import BATCHING, Running
from bench.simulator.figures import Compared, Figures
from bench.simulator.replay import Served, at_engine, simulated
from bench.simulator.workload import Texts, at_rate
from serve_app.cli.cache_config import CacheConfig
from serve_app.cli.calibrate import measure, shapes
from serve_app.cli.probe import Probe

WORDS = (8, 32, 64, 128, 256)
BATCHES = (1, 2, 4, 8, BATCHING.max_num_seqs)
ANSWER_TOKENS = 48
ROUNDS = 3
LOADS = {"low": 0.3, "medium": 0.6, "high": 0.85, "overload": 2.0}
"""Share of what the engine can do at most."""
LEAST_REQUESTS = 10


Calibration = list[list[Batch]]
"""The repeated batches of each experiment."""


@dataclass(frozen=True)
class Replay:
    """At the real engine."""

    load: str
    shared: bool
    served: Sequence[Served]
    asked: Sequence[Request]
    """As it was."""
    inside_s: float
    """Mean seconds in the engine until the first token, by its own clock."""
    others: float
    """Cores that somebody else had meanwhile."""


class Course:
    """`seconds` are those of each replay at the real engine."""

    def __init__(
        self,
        engine: Running,
        probe: Probe,
        cache: CacheConfig,
        requests: Sequence[Request],
        seconds: float,
        repeats: int,
        seed: int,
    ):
        self._engine = engine
        self._probe = probe
        self._cache = cache
        self._requests = requests
        self._seconds = seconds
        self._repeats = repeats
        self._rng = random.Random(seed)

    async def run(self) -> tuple[list[Calibration], list[Replay]]:
        """Two calibrations, and between them the replays. Raises FleetUnreachable, FleetRefused and CannotFit."""
        _say("calibrating")
        before = await self._calibrate()
        tokens_per_word = mean(each.prompt_tokens for each in before[len(WORDS) - 1][0]) / max(WORDS)
        capacity = self.capacity(self.fit(before).model)
        replays = []
        async with self._probe:
            for number, load, shared in itertools.product(range(self._repeats), LOADS, (False, True)):
                _say(f"replaying, {number + 1} of {self._repeats}: {load} load{', shared' if shared else ''}")
                texts = Texts(tokens_per_word, shared, self._cache.block_tokens, self._rng)
                replays.append(await self._replay(load, shared, texts, capacity))
        _say("calibrating again")
        return [before, await self._calibrate()], replays

    def fit(self, *calibrations: Calibration) -> Fit:
        """Of all of them together. Raises CannotFit."""
        joined = [[batch for each in same for batch in each] for same in zip(*calibrations, strict=True)]
        return fit(joined, self._cache.kv_tokens, "bench.simulator")

    def capacity(self, model: EngineModel) -> float:
        """Requests per second when there are always some waiting."""
        served = simulated(model, at_rate(self._requests, 1e6), self._cache.block_tokens)
        return len(served) / max(each.last for each in served)

    def compare(self, model: EngineModel, replays: Sequence[Replay]) -> list[Compared]:
        compared = []
        for load in LOADS:
            for shared in (False, True):
                same = [each for each in replays if (each.load, each.shared) == (load, shared)]
                models = [simulated(model, each.asked, self._cache.block_tokens) for each in same]
                real = tuple(Figures.of(each.served) for each in same)
                count = len(same[0].asked)
                inside = mean(each.inside_s for each in same)
                others = mean(each.others for each in same)
                compared.append(
                    Compared(load, shared, count, inside, model.request_s, others, real, tuple(map(Figures.of, models)))
                )
        return compared

    async def _calibrate(self) -> Calibration:
        return await measure(self._probe, shapes(WORDS, BATCHES), ANSWER_TOKENS, ROUNDS)

    async def _replay(self, load: str, shared: bool, texts: Texts, capacity: float) -> Replay:
        count = max(LEAST_REQUESTS, round(self._seconds * capacity * min(1.0, LOADS[load])))
        requests = at_rate(self._requests[:count], LOADS[load] * capacity)
        waited, usage = self._engine.waited(), self._engine.usage()
        served, asked = await at_engine(self._probe, requests, texts, self._cache.block_tokens)
        others = self._engine.usage().others(usage)
        return Replay(load, shared, served, asked, self._engine.waited().mean_s(waited), others)


def _say(what: str) -> None:
    print(what, file=sys.stderr)
