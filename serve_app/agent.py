"""The site agent: what this site says of itself at `/fleet/state`."""

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence

from fastapi import FastAPI, HTTPException
from ray import serve
from ray.exceptions import RayError
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, DeploymentStatusOverview

from autoscaling import ray_notes
from autoscaling.ray_notes import WORD_LIFETIME_S, Drain, Order, Renewed, Word
from clusters.render import AGENT_APP, ENGINE_DEPLOYMENT
from clusters.state import (
    BoundsOrder,
    DrainOrder,
    EngineSample,
    Held,
    NodeNotice,
    PlacementState,
    Readiness,
    ReleaseState,
    SiteState,
)
from serve_app.gate import TokenGate, site_token
from serve_app.site_args import AgentAppArgs, AgentPlacement
from serve_app.told import Told

logger = logging.getLogger("ray.serve")

SAMPLE_LIFETIME_S = 5.0
STATUS_INTERVAL_S = 1.0
NOTES_INTERVAL_S = 1.0
NOTICE_LIFETIME_S = 600.0
"""After a node's end."""
ANSWERING = ("RUNNING", "PENDING_MIGRATION", "RECOVERING")
"""Also on a node that drains, and while Serve's controller finds its replicas again."""
COMING = ("STARTING", "UPDATING")
FAILED = {ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY, ApplicationStatus.NOT_STARTED}


class SiteAgent:
    """One replica per site. Engines push samples to it, Serve's controller is asked for replicas once a second.

    What is kept is timed by the agent's own monotonic clock: nodes' clocks differ, and are set.
    """

    def __init__(self, args: AgentAppArgs):
        self._args = args
        self._samples: dict[str, dict[str, tuple[float, EngineSample]]] = {}
        self._releases: tuple[ReleaseState, ...] = ()
        self._applications: Mapping[str, ApplicationStatusOverview] | None = None
        self._told = Told()
        self._words = {placement.model: Renewed[Word](WORD_LIFETIME_S) for placement in args.placements}
        self._notices: dict[str, tuple[float, NodeNotice]] = {}
        """Each with the time when it is forgotten."""
        self._since: dict[str, tuple[Readiness, float]] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._drained_at: float | None = None

    async def __serve_build_asgi_app__(self) -> TokenGate:
        self._tasks = [asyncio.create_task(self._refresh()), asyncio.create_task(self._pass_on())]
        app = FastAPI(openapi_url=None)
        app.get("/state")(self.state)
        app.post("/state")(self.hear)
        app.post("/drain")(self.drain)
        app.post("/bounds")(self.bind)
        return TokenGate(app, site_token(self._args.token_variable, os.environ))

    def check_health(self) -> None:
        for task in self._tasks:
            if task.done():
                raise RuntimeError("the site's state is no longer refreshed") from task.exception()

    async def report(self, model: str, sample: dict[str, object]) -> None:
        """An engine replica's latest sample."""
        parsed = EngineSample.model_validate(sample)
        self._samples.setdefault(model, {})[parsed.replica] = time.monotonic(), parsed

    async def report_releases(self, releases: Sequence[dict[str, object]]) -> None:
        """What the site's replicator knows of every release that it keeps here."""
        self._releases = tuple(ReleaseState.model_validate(release) for release in releases)

    async def notice(self, notice: dict[str, object]) -> None:
        """A node's watcher heard that the provider takes the node back. Of several ends the earliest counts."""
        if "ends_in_s" in notice:
            # The node's clock may differ from ours.
            notice = {**notice, "ends_at": time.time() + float(str(notice["ends_in_s"]))}
        parsed = NodeNotice.model_validate(notice)
        _, earlier = self._notices.get(parsed.node, (0.0, parsed))
        forget_at = time.monotonic() + max(0.0, parsed.ends_at - time.time()) + NOTICE_LIFETIME_S
        self._notices[parsed.node] = forget_at, min(earlier, parsed, key=lambda each: each.ends_at)

    async def hear(self, held: Held) -> SiteState:
        """An ingress says what it holds for this site, and asks for its state."""
        if self._told.hear(held, time.monotonic()):
            self._wake.set()
        return await self.state()

    async def bind(self, order: BoundsOrder) -> SiteState:
        """The planner's order."""
        if not self._told.bind(order, time.monotonic()):
            raise HTTPException(409, "a planner that started later has given orders")
        return await self.state()

    async def drain(self, order: DrainOrder) -> SiteState:
        """An order of the ingress: the site says so of itself, and so every ingress replica learns of it."""
        self._drained_at = None if order.deadline_s is None else time.monotonic() + order.deadline_s
        until = None if order.deadline_s is None else time.time() + order.deadline_s
        await asyncio.to_thread(ray_notes.write, AGENT_APP, Drain(until))
        return await self.state()

    def see(self, applications: Mapping[str, ApplicationStatusOverview]) -> None:
        """What Serve's controller tells. It knows of one application at least, the agent's own, or it knows nothing."""
        if applications:
            self._applications = applications

    async def state(self) -> SiteState:
        """Raises HTTPException 503 as long as Serve's controller has told nothing: unknown is not down."""
        if self._applications is None:
            raise HTTPException(503, "it is not known yet which placements answer")
        now = time.monotonic()
        self._samples = {model: _fresh(samples, now) for model, samples in self._samples.items()}
        self._notices = {node: kept for node, kept in self._notices.items() if now < kept[0]}
        return SiteState(
            site=self._args.site,
            at=time.time(),
            drain_s=None if self._drained_at is None else max(0.0, self._drained_at - now),
            placements=tuple(
                self._placement(placement, self._applications, now) for placement in self._args.placements
            ),
            releases=self._releases,
            notices=tuple(notice for _, notice in self._notices.values()),
        )

    def _placement(
        self, placement: AgentPlacement, applications: Mapping[str, ApplicationStatusOverview], now: float
    ) -> PlacementState:
        model = placement.model
        samples = [sample for _, sample in self._samples.get(model, {}).values()]
        state = placement_state(placement, applications.get(model), samples, self._words[model].current(now))
        if self._since.get(model, (None,))[0] is not state.readiness:
            self._since[model] = (state.readiness, now)
        return state.model_copy(
            update={
                "since": time.time() - (now - self._since[model][1]),
                "held": self._told.held(model, now),
                "bounds": self._told.bounds(model, now),
            }
        )

    async def _refresh(self) -> None:
        """For ever. While Serve's controller restarts, the last answer stands."""
        drain = await asyncio.to_thread(ray_notes.read, AGENT_APP, Drain)
        if drain is not None and drain.until is not None and self._drained_at is None:
            self._drained_at = time.monotonic() + drain.until - time.time()
        while True:
            try:
                self.see((await asyncio.to_thread(serve.status)).applications)
            except RayError as error:
                logger.warning("Serve's controller does not tell the state of applications: %s", error)
            await asyncio.sleep(STATUS_INTERVAL_S)

    async def _pass_on(self) -> None:
        """For ever: settings and orders to the autoscaler of each placement, and its words back. A sleeper is woken at
        once."""
        while True:
            now = time.monotonic()
            orders = {placement.model: self._told.order(placement.model, now) for placement in self._args.placements}
            words = await asyncio.to_thread(_exchange_notes, self._args.placements, orders)
            for model, word in words.items():
                self._words[model].heed(word, time.monotonic())
            try:
                await asyncio.wait_for(self._wake.wait(), NOTES_INTERVAL_S)
            except TimeoutError:
                pass
            self._wake.clear()


def _exchange_notes(
    placements: Sequence[AgentPlacement], orders: Mapping[str, Order | None]
) -> Mapping[str, Word | None]:
    """Autoscalers find their settings here: in the applications of models, a change of them would replace replicas."""
    for placement in placements:
        ray_notes.write(placement.model, placement.autoscaling)
        order = orders[placement.model]
        if order is not None:
            ray_notes.write(placement.model, order)
    return {placement.model: ray_notes.read(placement.model, Word) for placement in placements}


def _fresh(samples: Mapping[str, tuple[float, EngineSample]], now: float) -> dict[str, tuple[float, EngineSample]]:
    return {replica: heard for replica, heard in samples.items() if now - heard[0] <= SAMPLE_LIFETIME_S}


def placement_state(
    placement: AgentPlacement,
    application: ApplicationStatusOverview | None,
    samples: Sequence[EngineSample],
    word: Word | None = None,
) -> PlacementState:
    """Join what Serve's controller says of an application with what its engines, and its autoscaler, say."""
    replica_states = _engine_deployment(application)
    answering = sum(replica_states.get(state, 0) for state in ANSWERING)
    leaving = replica_states.get("PENDING_MIGRATION", 0)
    coming = sum(replica_states.get(state, 0) for state in COMING)
    target = answering - leaving + coming if word is None else word.target
    return PlacementState(
        model=placement.model,
        release=placement.release,
        readiness=_readiness(application, answering, asleep=word is not None and target + coming == 0),
        replicas=answering,
        target_replicas=target,
        leaving=leaving,
        capacity=placement.capacity,
        running=sum(sample.running for sample in samples) if samples else None,
        waiting=sum(sample.waiting for sample in samples) if samples else None,
        kv_usage=sum(sample.kv_usage for sample in samples) / len(samples) if samples else None,
        reason="" if word is None else word.reason,
        message=application.message if application else "not deployed",
    )


def _engine_deployment(application: ApplicationStatusOverview | None) -> Mapping[str, int]:
    deployments: Mapping[str, DeploymentStatusOverview] = application.deployments if application else {}
    return next(
        (status.replica_states for name, status in deployments.items() if name.startswith(ENGINE_DEPLOYMENT)), {}
    )


def _readiness(application: ApplicationStatusOverview | None, answering: int, asleep: bool) -> Readiness:
    if answering:
        return Readiness.READY
    if application and application.status in FAILED:
        return Readiness.FAILED
    return Readiness.ASLEEP if asleep and application else Readiness.STARTING
