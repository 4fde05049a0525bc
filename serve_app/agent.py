"""The site agent: what this site says of itself at `/fleet/state`."""

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, DeploymentStatusOverview

from clusters.state import DrainOrder, EngineSample, PlacementState, Readiness, ReleaseState, SiteState
from serve_app.gate import TokenGate, site_token
from serve_app.site_args import ENGINE_DEPLOYMENT, AgentAppArgs, AgentPlacement

logger = logging.getLogger("ray.serve")

SAMPLE_LIFETIME_S = 5.0
STATUS_INTERVAL_S = 1.0
FAILED = {ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY, ApplicationStatus.NOT_STARTED}


class SiteAgent:
    """One replica per site. Engines push samples to it, Serve's controller is asked for replicas once a second."""

    def __init__(self, args: AgentAppArgs):
        self._args = args
        self._samples: dict[str, dict[str, EngineSample]] = {}
        self._releases: tuple[ReleaseState, ...] = ()
        self._applications: Mapping[str, ApplicationStatusOverview] = {}
        self._refresher: asyncio.Task[None] | None = None
        self._drained_at: float | None = None

    async def __serve_build_asgi_app__(self) -> TokenGate:
        self._refresher = asyncio.create_task(self._refresh())
        app = FastAPI(openapi_url=None)
        app.get("/state")(self.state)
        app.post("/drain")(self.drain)
        return TokenGate(app, site_token(self._args.token_variable, os.environ))

    def check_health(self) -> None:
        if self._refresher and self._refresher.done():
            raise RuntimeError("the site's state is no longer refreshed") from self._refresher.exception()

    async def report(self, model: str, sample: dict[str, object]) -> None:
        """An engine replica's latest sample."""
        parsed = EngineSample.model_validate(sample)
        self._samples.setdefault(model, {})[parsed.replica] = parsed

    async def report_releases(self, releases: Sequence[dict[str, object]]) -> None:
        """What the site's replicator knows of every release that it keeps here."""
        self._releases = tuple(ReleaseState.model_validate(release) for release in releases)

    async def drain(self, order: DrainOrder) -> SiteState:
        """An order of the ingress: the site says so of itself, and so every ingress replica learns of it."""
        self._drained_at = None if order.deadline_s is None else time.time() + order.deadline_s
        return await self.state()

    async def state(self) -> SiteState:
        now = time.time()
        self._samples = {model: _fresh(samples, now) for model, samples in self._samples.items()}
        return SiteState(
            site=self._args.site,
            at=now,
            drain_s=None if self._drained_at is None else max(0.0, self._drained_at - now),
            placements=tuple(
                placement_state(
                    placement,
                    self._applications.get(placement.model),
                    tuple(self._samples.get(placement.model, {}).values()),
                )
                for placement in self._args.placements
            ),
            releases=self._releases,
        )

    async def _refresh(self) -> None:
        """For ever. While Serve's controller restarts, the last answer stands."""
        while True:
            try:
                self._applications = (await asyncio.to_thread(serve.status)).applications
            except RayError as error:
                logger.warning("Serve's controller does not tell the state of applications: %s", error)
            await asyncio.sleep(STATUS_INTERVAL_S)


def _fresh(samples: Mapping[str, EngineSample], now: float) -> dict[str, EngineSample]:
    return {replica: sample for replica, sample in samples.items() if now - sample.at <= SAMPLE_LIFETIME_S}


def placement_state(
    placement: AgentPlacement, application: ApplicationStatusOverview | None, samples: Sequence[EngineSample]
) -> PlacementState:
    """Join what Serve's controller says of an application with what its engines say of themselves."""
    replica_states = _engine_deployment(application)
    answering = replica_states.get("RUNNING", 0)
    return PlacementState(
        model=placement.model,
        release=placement.release,
        readiness=_readiness(application, answering),
        replicas=answering,
        target_replicas=sum(replica_states.get(state, 0) for state in ("RUNNING", "STARTING", "UPDATING")),
        capacity=placement.capacity,
        running=sum(sample.running for sample in samples) if samples else None,
        waiting=sum(sample.waiting for sample in samples) if samples else None,
        kv_usage=sum(sample.kv_usage for sample in samples) / len(samples) if samples else None,
        message=application.message if application else "not deployed",
    )


def _engine_deployment(application: ApplicationStatusOverview | None) -> Mapping[str, int]:
    deployments: Mapping[str, DeploymentStatusOverview] = application.deployments if application else {}
    return next(
        (status.replica_states for name, status in deployments.items() if name.startswith(ENGINE_DEPLOYMENT)), {}
    )


def _readiness(application: ApplicationStatusOverview | None, answering: int) -> Readiness:
    if answering:
        return Readiness.READY
    if application and application.status in FAILED:
        return Readiness.FAILED
    return Readiness.STARTING
