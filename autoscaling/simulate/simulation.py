"""The simulation itself: a clock that jumps from event to event, and what happens at each."""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Generic

from autoscaling.simulate.availability import Outage
from autoscaling.simulate.billing import Meter
from autoscaling.simulate.journey import Journey
from autoscaling.simulate.nodes import Nodes
from autoscaling.simulate.outcome import Change, Outcome, Point, SiteUse
from autoscaling.simulate.placement import Later, Placement
from autoscaling.simulate.ports import Choice, Controller, Holding, Ingress, Place, Target
from autoscaling.simulate.scenario import Scenario
from autoscaling.simulate.traffic import Traffic
from clusters.state import Observation, SiteState

COURSE_S = 5.0
"""Between two points of a placement's course."""

Progress = Callable[[float], None]
"""Is told the share of requests that are over."""


class Simulation(Generic[Choice]):
    """Runs once. The same arguments give the same outcome."""

    def __init__(
        self,
        scenario: Scenario,
        ingress: Ingress[Choice],
        holding: Holding[Journey[Choice]],
        controller: Controller,
        progress: Progress = lambda _: None,
    ):
        self._scenario = scenario
        self._ingress = ingress
        self._holding = holding
        self._controller = controller
        self._progress = progress
        self._routing = scenario.fleet.routing
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._meter = Meter(scenario.fleet)
        self._nodes = {site.name: _nodes(scenario, site.name, self._meter) for site in scenario.fleet.sites}
        self._placements = _placements(scenario, self._nodes, self._meter, self._at)
        self._sites = {
            site.name: [each for place, each in self._placements.items() if place[0] == site.name]
            for site in scenario.fleet.sites
        }
        self._traffic = Traffic(scenario, ingress, holding, self._placements, self._at)
        self._seen: dict[str, Observation] = {}
        self._changes: list[Change] = []
        self._course: list[Point] = []
        self._course_at = -math.inf
        self._worst_queue = 0

    def run(self) -> Outcome:
        """Until every request of the trace is over."""
        self._set_out()
        requests = self._scenario.requests
        arrived, now = 0, 0.0
        while len(self._traffic.served) < len(requests):
            if arrived < len(requests) and requests[arrived].at <= self._events[0][0]:
                now = requests[arrived].at
                self._traffic.arrive(arrived, requests[arrived], now)
                arrived += 1
            else:
                now, _, event = heapq.heappop(self._events)
                event(now)
        self._meter.close(now)
        return self._outcome(now)

    def _set_out(self) -> None:
        """What is known from the start to come."""
        scenario = self._scenario
        rng = random.Random(scenario.seed)
        for place, placement in self._placements.items():
            placement.target = scenario.initial.get(place, placement.spec.autoscaling.min_replicas)
        self._ask(0.0)
        for placement in self._placements.values():
            placement.begin()
        for site in self._sites:
            self._read(site, 0.0)
            self._at(rng.uniform(0, self._routing.poll_interval_s), partial(self._poll, site))
        for outage in scenario.outages:
            self._at(outage.began, partial(self._begin_outage, outage))
            self._at(outage.ended, partial(self._end_outage, outage))
        for (site, pool), availability in scenario.spot.items():
            for change in availability.changes:
                if availability.at(change):
                    self._at(change, partial(self._reopen, site, pool))
            for noticed, lost in availability.losses:
                self._at(noticed, partial(self._close, site, pool, lost))
                self._at(max(noticed, lost - availability.drain_s), partial(self._drain, site, pool))
                self._at(lost, partial(self._take_away, site, pool))
        self._at(0.0, self._tick)

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def _poll(self, site: str, now: float) -> None:
        self._read(site, now)
        self._at(now + self._routing.poll_interval_s, partial(self._poll, site))

    def _read(self, site: str, now: float) -> None:
        """A state that comes is as old as half a round trip; one that does not leaves the last one, with its age."""
        if site in self._traffic.out:
            self._seen[site] = self._seen[site].model_copy(update={"error": "does not answer"})
            self._ingress.observe(self._seen[site])
            return
        round_trip_s = self._scenario.round_trip_s.get(site, 0.0)
        state = SiteState(site=site, at=now, placements=tuple(each.state() for each in self._sites[site]))
        seen = Observation(site=site, state=state, read_at=now + round_trip_s, round_trip_s=round_trip_s)

        def arrived(_: float) -> None:
            self._seen[site] = seen
            self._ingress.observe(seen)

        if now:
            self._at(now + round_trip_s, arrived)
        else:
            arrived(now)

    def _begin_outage(self, outage: Outage, now: float) -> None:
        self._traffic.out.add(outage.site)
        for placement in self._sites[outage.site]:
            for sequence, left in placement.cut(now):
                self._traffic.lose(sequence, left, "the site is out", True, now)

    def _end_outage(self, outage: Outage, now: float) -> None:
        self._traffic.out.discard(outage.site)

    def _reopen(self, site: str, pool: str, now: float) -> None:
        self._nodes[site].reopen(pool)

    def _close(self, site: str, pool: str, ends_at: float, now: float) -> None:
        self._nodes[site].close(pool, ends_at)
        for placement in self._sites[site]:
            placement.close(pool, now)

    def _drain(self, site: str, pool: str, now: float) -> None:
        for placement in self._sites[site]:
            placement.drain(pool, now)

    def _take_away(self, site: str, pool: str, now: float) -> None:
        """Its streams leave on the provider's notice as far as they end before; the rest goes on elsewhere."""
        for placement in self._sites[site]:
            for sequence, left in placement.take_away(pool, now):
                self._traffic.lose(sequence, left, "its node was taken away", False, now)

    def _tick(self, now: float) -> None:
        readings = [
            placement.reading(self._traffic.held.get(place, 0), place[0] not in self._traffic.out, now)
            for place, placement in self._placements.items()
        ]
        self._scale(self._controller.targets(readings, now), now)
        waiting = 0
        for placement in self._placements.values():
            queue = sum(replica.engine.waiting for replica in placement.engines)
            placement.worst_queue = max(placement.worst_queue, queue)
            waiting += queue
        self._worst_queue = max(self._worst_queue, waiting + self._holding.size)
        if now - self._course_at >= COURSE_S:
            self._course_at = now
            self._course += [self._point(placement, now) for placement in self._placements.values()]
            self._progress(len(self._traffic.served) / len(self._scenario.requests))
        self._traffic.admit(now)
        self._at(now + self._scenario.tick_s, self._tick)

    def _scale(self, targets: Mapping[Place, Target], now: float) -> None:
        for place, placement in self._placements.items():
            target = targets.get(place)
            if target is not None and target.replicas != placement.target:
                self._changes.append(Change(now, place, placement.target, target.replicas, target.reason))
                placement.target = target.replicas
        self._ask(now)
        for placement in self._placements.values():
            placement.scale(now)

    def _ask(self, now: float) -> None:
        for site, nodes in self._nodes.items():
            nodes.ask({placement.spec.model: placement.target for placement in self._sites[site]}, now)

    def _point(self, placement: Placement, now: float) -> Point:
        serving = placement.serving
        return Point(
            now,
            placement.place,
            placement.target,
            len(serving),
            sum(replica.engine.running for replica in serving),
            sum(replica.engine.waiting for replica in serving),
            self._traffic.held.get(placement.place, 0),
        )

    def _outcome(self, now: float) -> Outcome:
        return Outcome(
            seconds=now,
            ttft_target_s=self._scenario.ttft_target_s,
            served=tuple(self._traffic.served[n] for n in range(len(self._traffic.served))),
            sites=tuple(
                SiteUse(
                    site,
                    self._meter.gpu_hours(site),
                    self._meter.usd(site),
                    self._traffic.egress_usd[site],
                    sum(each.worst_queue for each in placements),
                    sum(each.interrupted for each in placements),
                    sum(each.preempted + sum(r.engine.preempted for r in each.engines) for each in placements),
                )
                for site, placements in self._sites.items()
            ),
            changes=tuple(self._changes),
            course=tuple(self._course),
            worst_held=self._traffic.worst_held,
            worst_queue=self._worst_queue,
        )


def _nodes(scenario: Scenario, site: str, meter: Meter) -> Nodes:
    market = {pool: availability for (where, pool), availability in scenario.spot.items() if where == site}
    return Nodes(scenario.fleet, site, market, meter)


def _placements(scenario: Scenario, nodes: Mapping[str, Nodes], meter: Meter, later: Later) -> dict[Place, Placement]:
    fleet = scenario.fleet
    block_tokens = max((request.block_tokens for request in scenario.requests), default=0)
    made = {}
    for spec in fleet.placements:
        place = (spec.site, spec.model)
        made[place] = Placement(
            spec,
            fleet.model(spec.model).release,
            scenario.engines[place],
            block_tokens or 16,
            scenario.startup_of(place),
            nodes[spec.site],
            meter,
            later,
        )
    return made
