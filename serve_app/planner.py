"""The planner: one process beside the ingress that decides where replicas go, and sets bounds at the sites."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from autoscaling.planning.memory import Memory
from autoscaling.planning.plan import plan
from clusters.fields import Spec
from clusters.spec import FleetSpec
from clusters.state import Bounds, BoundsOrder
from clusters.watch import FleetWatch, MonotonicClock
from serve_app.metering.export import Backend, Export
from serve_app.metering.metrics import ORDERS_FAILED, PLANNED_MAX, PLANNED_MIN, PLANNER
from serve_app.metering.sums import Sums
from serve_app.ray_metrics import RayMetrics
from serve_app.relay.targets import secrets
from serve_app.states import BoundsFailed, HttpStates

logger = logging.getLogger("ray.serve")

Limits = tuple[int | None, int | None]


class Planner:
    """Without Ray. What it knows is lost with it: what is in force it hears from the sites."""

    def __init__(self, fleet: FleetSpec, tokens: Mapping[str, str], *backends: Backend):
        endpoints = {site.name: site.endpoint for site in fleet.sites}
        self._fleet = fleet
        self._states = HttpStates(endpoints, tokens)
        self._watch = FleetWatch(
            tuple(endpoints),
            self._states,
            interval_s=fleet.routing.poll_interval_s,
            timeout_s=fleet.routing.state_max_age_s / 2,
            clock=MonotonicClock(),
            rng=random.Random(),
        )
        self._started_at = time.time()
        self._memory: Memory = {}
        self._set: Mapping[tuple[str, str], Limits] = {}
        self._troubles: dict[str, str] = {}
        self._sums = Sums(PLANNER)
        self._exports = [Export(self._sums, backend) for backend in backends]

    def check(self) -> None:
        """Raises when the sites are no longer watched."""
        self._watch.check()

    async def run(self) -> None:
        """For ever."""
        async with self._states, self._watch:
            while True:
                await self._step()
                await asyncio.sleep(self._fleet.planner.interval_s)

    async def _step(self) -> None:
        planned = plan(self._fleet, self._watch.state, self._memory, time.monotonic())
        self._memory = planned.memory
        self._tell(planned.bounds)
        await asyncio.gather(*(self._order(site, bounds) for site, bounds in planned.bounds.items()))
        self._measure(planned.bounds)

    async def _order(self, site: str, bounds: Iterable[Bounds]) -> None:
        """A lost order is not repeated: the next is on its way."""
        lifetime_s = self._fleet.planner.lifetime_s
        order = BoundsOrder(started_at=self._started_at, lifetime_s=lifetime_s, bounds=tuple(bounds))
        trouble = ""
        try:
            await self._states.bound(site, order)
        except BoundsFailed as error:
            trouble = str(error)
            self._sums.numbers(ORDERS_FAILED)[(site,)] += 1
        if trouble != self._troubles.get(site, ""):
            logger.warning("rayfleet's planner: %s", trouble or f"the agent of {site} takes orders again")
        self._troubles[site] = trouble

    def _tell(self, planned: Mapping[str, Iterable[Bounds]]) -> None:
        """Reasons hold numbers that move: only changed bounds are news."""
        now = {(site, each.model): each for site, bounds in planned.items() for each in bounds}
        limits = {place: (each.min_replicas, each.max_replicas) for place, each in now.items()}
        for (site, model), each in now.items():
            if limits[site, model] != self._set.get((site, model)):
                logger.info("rayfleet plans %s at %s: %s; %s", model, site, _words(limits[site, model]), each.reason)
        for site, model in self._set.keys() - limits.keys():
            logger.info("rayfleet plans %s at %s: it scales by itself", model, site)
        self._set = limits

    def _measure(self, planned: Mapping[str, Iterable[Bounds]]) -> None:
        bounds = {(site, each.model): each for site, of in planned.items() for each in of}
        for placement in self._fleet.placements:
            scaling, labels = placement.autoscaling, (placement.model, placement.site)
            each = bounds.get((placement.site, placement.model), Bounds(model=placement.model))
            least, most = each.min_replicas, each.max_replicas
            self._sums.numbers(PLANNED_MIN)[labels] = scaling.min_replicas if least is None else least
            self._sums.numbers(PLANNED_MAX)[labels] = scaling.max_replicas if most is None else most
        for export in self._exports:
            export.flush()


def _words(limits: Limits) -> str:
    least, most = limits
    words = ("" if least is None else f"at least {least}", "" if most is None else f"at most {most}")
    return ", ".join(word for word in words if word)


class PlannerArgs(Spec):
    """The application's `args`."""

    fleet: FleetSpec


class PlannerReplica:
    """The one that plans. While a new one takes its place there are two, and agents heed the one that started later."""

    def __init__(self, args: PlannerArgs):
        self._planner = Planner(args.fleet, secrets(args.fleet, os.environ), RayMetrics())
        self._task = asyncio.create_task(self._planner.run())

    def check_health(self) -> None:
        if self._task.done():
            raise RuntimeError("the planner has ended") from self._task.exception()
        self._planner.check()


def build(args: dict[str, Any]) -> Application:
    """The planner of one fleet."""
    deployment = serve.deployment(PlannerReplica, name="Planner", num_replicas=1, ray_actor_options={"num_cpus": 0})
    return deployment.bind(PlannerArgs.model_validate(args))
