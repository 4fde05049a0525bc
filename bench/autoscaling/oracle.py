"""What somebody who knows the trace would do: the fewest replica-hours found that still serve well enough."""

import math
from collections.abc import Iterator, Mapping, Sequence

from autoscaling.simulate.cards import assumed_model
from autoscaling.simulate.ports import Place, PlacementReading, Target
from bench.autoscaling.fleets import ON_DEMAND
from bench.autoscaling.stage import Run, Stage, play

INTERVAL_S = 180.0
MINUTE_S = 60.0
NAME = "oracle"


class Scheduled:
    """Replicas by interval. Those that an interval needs are asked for `lead_s` before it begins."""

    def __init__(self, replicas: Sequence[int], lead_s: float):
        self._replicas = replicas
        self._lead_s = lead_s

    def targets(self, readings: Sequence[PlacementReading], now: float) -> Mapping[Place, Target]:
        replicas = max(self._during(now), self._during(now + self._lead_s))
        return {reading.place: Target(replicas, "the schedule") for reading in readings}

    def _during(self, now: float) -> int:
        return self._replicas[min(int(now / INTERVAL_S), len(self._replicas) - 1)]


def oracle(stage: Stage, peak: int, tries: int) -> list[Run]:
    """Every schedule that was played, the cheapest that serves well enough first. `peak` replicas are enough all the
    time. First the work of each interval sets the schedule, then intervals lose a replica each where that costs least,
    as long as attainment and `tries` last. A better schedule may exist: this bounds the optimum from above."""
    work = _work(stage)
    runs, best = _by_work(stage, work, peak)
    for n in _emptiest_first(work, best):
        if len(runs) >= tries:
            break
        fewer = [count - (i == n) for i, count in enumerate(best)]
        if fewer[n] < 1:
            continue
        run = _play(stage, fewer)
        if run.attainment >= stage.attainment and run.gpu_hours < runs[0].gpu_hours:
            best = fewer
            runs.insert(0, run)
        else:
            runs.append(run)
    return runs


def _by_work(stage: Stage, work: Sequence[float], peak: int) -> tuple[list[Run], list[int]]:
    """As many replicas as the share of the highest work says, and more everywhere until that is enough."""
    runs: list[Run] = []
    for reserve in (0.0, 0.5, 1.0, 1.5, 2.0):
        schedule = [min(peak, math.ceil(peak * each / max(work) * 0.9 + reserve)) for each in work]
        runs.insert(0, _play(stage, schedule))
        if runs[0].attainment >= stage.attainment:
            return runs, schedule
    runs.insert(0, _play(stage, [peak] * len(work)))
    return runs, [peak] * len(work)


def _emptiest_first(work: Sequence[float], schedule: Sequence[int]) -> Iterator[int]:
    """Intervals by their work per replica, twice over."""
    order = sorted(range(len(work)), key=lambda n: work[n] / schedule[n])
    yield from order
    yield from order


def _work(stage: Stage) -> list[float]:
    """Per interval, that of its busiest minute: seconds of an engine that no batch would share."""
    model = assumed_model(stage.card)
    minutes = [0.0] * (int(stage.requests[-1].at // MINUTE_S) + 1)
    for request in stage.requests:
        decode_s = request.output_tokens * (model.sequence_s + model.step_s / 32)
        minutes[int(request.at // MINUTE_S)] += request.prompt_tokens * model.prefill_token_s + decode_s
    each = int(INTERVAL_S // MINUTE_S)
    return [max(minutes[n : n + each]) for n in range(0, len(minutes), each)]


def _play(stage: Stage, schedule: Sequence[int]) -> Run:
    return play(
        stage, NAME, sum(schedule) / len(schedule), Scheduled(schedule, stage.start_s), initial={ON_DEMAND: schedule[0]}
    )
