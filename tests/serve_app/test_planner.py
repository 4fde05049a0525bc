"""The planner's loop against agents behind real servers on loopback, without Ray."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import pytest
from aiohttp import web

from clusters.render import PLANNER_APP, ingress_config
from clusters.routing import RoutingSpec
from clusters.scaling import PlannerSpec
from clusters.spec import FleetSpec
from clusters.state import BoundsOrder, PlacementState, SiteState
from serve_app.metering.export import Recorder
from serve_app.metering.metrics import Metric
from serve_app.metering.sums import Labels
from serve_app.planner import Planner, build
from serve_app.states import BoundsFailed, HttpStates
from serve_app.told import Told
from tests.autoscaling.planned_fleets import seen, three, told
from tests.serve_app.waiting import wait_for

TOKEN = "site-token"
BURST = {"home": told(ready=2, load=16), "spot": told(ready=0), "dear": told(ready=1, load=24)}


@dataclass
class Agent:
    """A site's, as far as the planner knows it. `placement` is what it says, but for its bounds."""

    name: str
    placement: PlacementState
    status: int = 200
    """Of its answers to orders; 0 means that it never answers."""
    orders: list[BoundsOrder] = field(default_factory=list)
    told: Told = field(default_factory=Told)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/fleet/state", self._state)
        app.router.add_post("/fleet/bounds", self._bounds)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.endpoint = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _state(self, request: web.Request) -> web.Response:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        bounds = self.told.bounds("m", time.time())
        state = seen(0, {self.name: self.placement.model_copy(update={"bounds": bounds})}).observations[self.name].state
        assert isinstance(state, SiteState)
        return web.Response(text=state.model_copy(update={"at": time.time()}).model_dump_json())

    async def _bounds(self, request: web.Request) -> web.Response:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        if self.status == 0:
            await asyncio.sleep(60)
        order = BoundsOrder.model_validate_json(await request.read())
        self.orders.append(order)
        if self.status != 200:
            return web.Response(status=self.status)
        return web.Response(status=200 if self.told.bind(order, time.time()) else 409)

    @property
    def floor(self) -> int | None:
        bounds = self.told.bounds("m", time.time())
        return bounds.min_replicas if bounds else None

    @property
    def floors(self) -> set[int | None]:
        """In all orders."""
        return {order.bounds[0].min_replicas if order.bounds else None for order in self.orders}


class Kept:
    """A backend that remembers."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, Labels], float] = {}

    def counter(self, metric: Metric) -> Recorder:
        return lambda value, labels: self._set(metric, labels, self.values.get((metric.name, labels), 0) + value)

    def gauge(self, metric: Metric) -> Recorder:
        return lambda value, labels: self._set(metric, labels, value)

    def _set(self, metric: Metric, labels: Labels, value: float) -> None:
        self.values[metric.name, labels] = value


@asynccontextmanager
async def agents(**placements: PlacementState) -> AsyncIterator[dict[str, Agent]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(Agent(name, placement)) for name, placement in placements.items()}


def fleet(sites: dict[str, Agent]) -> FleetSpec:
    spec = three()
    return spec.model_copy(
        update={
            "sites": tuple(
                site.model_copy(update={"endpoint": sites[site.name].endpoint, "token_env": "TOKEN"})
                for site in spec.sites
            ),
            "planner": PlannerSpec(interval_s=0.05),
            "routing": RoutingSpec(poll_interval_s=0.05, state_max_age_s=2),
        }
    )


@asynccontextmanager
async def planning(sites: dict[str, Agent], backend: Kept | None = None) -> AsyncIterator[Planner]:
    planner = Planner(fleet(sites), dict.fromkeys(sites, TOKEN), *([backend] if backend else ()))
    task = asyncio.create_task(planner.run())
    try:
        yield planner
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_for, holds)


async def test_a_burst_at_a_dear_site_becomes_a_floor_at_a_cheaper_one(caplog: pytest.LogCaptureFixture) -> None:
    backend = Kept()
    caplog.set_level(logging.INFO, "ray.serve")
    logging.getLogger("ray.serve").addHandler(caplog.handler)
    async with agents(**BURST) as sites, planning(sites, backend) as planner:
        await until(lambda: all(len(site.orders) > 2 for site in sites.values()))
        planner.check()
    logging.getLogger("ray.serve").removeHandler(caplog.handler)
    assert sites["spot"].floor == 2
    assert sites["spot"].orders[-1].bounds[0].reason.startswith("5 replicas needed: 40 requests at 8; spot first")
    assert sites["dear"].orders[-1].bounds == ()
    assert backend.values["rayfleet_planned_min_replicas", ("m", "spot")] == 2
    assert backend.values["rayfleet_planned_min_replicas", ("m", "dear")] == 0
    assert backend.values["rayfleet_planned_max_replicas", ("m", "spot")] == 8
    lines = [record.getMessage() for record in caplog.records if "rayfleet plans" in record.getMessage()]
    assert len([line for line in lines if "m at spot: at least 2; 5 replicas needed" in line]) == 1, lines


@pytest.mark.parametrize("status", [0, 404, 500])
async def test_an_agent_that_takes_no_orders_keeps_them_from_nobody_else(status: int) -> None:
    backend = Kept()
    async with agents(**BURST) as sites:
        sites["home"].status = status
        async with planning(sites, backend):
            await until(lambda: sites["spot"].floor == 2)
            if status:
                await until(lambda: backend.values.get(("rayfleet_planner_failed_orders_total", ("home",)), 0) > 1)


async def test_a_site_that_is_gone_is_planned_without() -> None:
    async with agents(**BURST) as sites:
        async with planning(sites):
            await until(lambda: sites["spot"].floor == 2)
            await sites["home"].__aexit__()
            before = len(sites["spot"].orders)
            await until(lambda: len(sites["spot"].orders) > before + 45)
        last = sites["spot"].orders[-1]
        assert last.bounds[0].min_replicas is not None
        assert last.bounds[0].min_replicas >= 2


async def test_a_planner_that_starts_anew_leaves_in_force_what_it_finds() -> None:
    async with agents(**BURST) as sites:
        async with planning(sites):
            await until(lambda: sites["spot"].floor == 2)
        sites["dear"].placement = told(ready=1, load=8)
        sites["spot"].orders.clear()
        async with planning(sites):
            await until(lambda: len(sites["spot"].orders) > 5)
        assert sites["spot"].floors == {2}


async def test_a_planner_that_starts_anew_leaves_in_force_what_it_finds_though_no_engine_reports() -> None:
    async with agents(**BURST) as sites:
        async with planning(sites):
            await until(lambda: sites["spot"].floor == 2)
        sites["spot"].placement = told(ready=1, load=None, target_replicas=2)
        sites["spot"].orders.clear()
        async with planning(sites):
            await until(lambda: len(sites["spot"].orders) > 5)
        assert sites["spot"].floors == {2}


async def test_after_a_planner_that_was_killed_between_two_orders_only_the_second_is_new() -> None:
    async with agents(home=told(ready=1, load=8), spot=told(ready=0), dear=told(ready=1, load=20)) as sites:
        sites["spot"].status = 0
        async with planning(sites):
            await until(lambda: sites["home"].floor == 2)
        assert sites["spot"].told.bounds("m", time.time()) is None
        assert sites["home"].told.bounds("m", time.time() + PlannerSpec().lifetime_s) is None, "if it was the last"
        sites["spot"].status = 200
        sites["home"].orders.clear()
        async with planning(sites):
            await until(lambda: sites["spot"].floor is not None)
            await until(lambda: len(sites["home"].orders) > 5)
        assert sites["spot"].floors == {1}
        assert sites["home"].floors == {2}


async def test_of_two_planners_the_one_that_started_later_counts() -> None:
    backend = Kept()
    async with agents(**BURST) as sites, planning(sites, backend):
        await until(lambda: sites["spot"].floor == 2)
        first = sites["spot"].orders[0].started_at
        async with planning(sites):
            await until(lambda: backend.values.get(("rayfleet_planner_failed_orders_total", ("spot",)), 0) > 1)
            assert {order.started_at for order in sites["spot"].orders} > {first}
            assert sites["spot"].floor == 2


@pytest.mark.parametrize(
    ("site", "status", "words"),
    [
        ("home", 409, "the agent of home heeds a planner that started later"),
        ("home", 422, "the agent of home answers with status 422"),
        ("gone", 0, "the agent of gone can't be reached: ClientConnectorError"),
    ],
)
async def test_why_an_order_was_not_taken_is_told(site: str, status: int, words: str) -> None:
    order = BoundsOrder(started_at=0, lifetime_s=1, bounds=())
    async with agents(home=told()) as sites:
        sites["home"].status = status
        endpoints = {"home": sites["home"].endpoint, "gone": "http://127.0.0.1:1"}
        async with HttpStates(endpoints, dict.fromkeys(endpoints, TOKEN)) as states:
            with pytest.raises(BoundsFailed) as failed:
                await states.bound(site, order)
    assert str(failed.value) == words


def test_it_is_deployed_beside_the_ingress_unless_it_is_off() -> None:
    spec = three()
    applications = {each["name"]: each for each in ingress_config(spec, "h")["applications"]}
    assert applications[PLANNER_APP]["import_path"] == "serve_app.planner:build"
    assert build(applications[PLANNER_APP]["args"]) is not None
    off = spec.model_copy(update={"planner": PlannerSpec(enabled=False)})
    assert [each["name"] for each in ingress_config(off, "h")["applications"]] == ["rayfleet"]
