"""Composition root of the ingress's Serve application. `config.yaml` names `build` as its import path."""

import os
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from autoscaling.ray_config import autoscaling_config
from autoscaling.ray_signals import RUNNING_METRIC
from clusters.fields import Spec
from clusters.scaling import AutoscalingSpec
from clusters.spec import FleetSpec, IngressSpec
from serve_app.gateway import Gateway
from serve_app.ray_metrics import RayMetrics
from serve_app.relay.targets import secrets

MAX_ONGOING_REQUESTS = 10_000
"""Per replica. A waiting stream costs little, and the sites, not Serve, say when there is too much to do."""

SERVES_OWN_DRAIN_S = 45.0
"""Before a replica hears that it is to go, Serve waits for its load balancers: 30 s, and some."""

REPLICA_ENV = {
    # The gateway shares Serve's own event loop: between two threads Serve puts a queue without bounds, in which a slow
    # client's answer would pile up, and hands every chunk over at a price.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # Lines of Serve's access log that are written at once.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "100",
}


class IngressArgs(Spec):
    """The application's `args`. `host` is where the client port listens."""

    fleet: FleetSpec
    host: str


class Ingress:
    """One replica of the endpoint. It owns the client port together with the other replicas on its node."""

    def __init__(self, args: IngressArgs):
        self._gateway = Gateway(args.fleet, secrets(args.fleet, os.environ), RayMetrics(), host=args.host)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._gateway.app

    def check_health(self) -> None:
        self._gateway.check()

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {RUNNING_METRIC: len(self._gateway.relay.open)}


def build(args: dict[str, Any]) -> Application:
    """The ingress of one fleet. Its spec travels as plain data, and every replica builds its own gateway."""
    parsed = IngressArgs.model_validate(args)
    deployment = serve.deployment(
        name="Ingress",
        **_replicas(parsed.fleet.ingress),
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        # A new replica takes over the client port before an old one leaves.
        max_surge_percent=100,
        graceful_shutdown_timeout_s=SERVES_OWN_DRAIN_S + parsed.fleet.ingress.drain_s,
        ray_actor_options={"runtime_env": {"env_vars": REPLICA_ENV}},
    )(serve.ingress()(Ingress))
    return deployment.bind(parsed)


def _replicas(ingress: IngressSpec) -> dict[str, Any]:
    """A fixed number, or bounds: then open requests decide, by the policy that engines are scaled with."""
    if ingress.max_replicas is None:
        return {"num_replicas": ingress.replicas}
    scaling = AutoscalingSpec(
        min_replicas=ingress.replicas,
        max_replicas=ingress.max_replicas,
        target_queue_depth=ingress.requests_per_replica,
    )
    return {"autoscaling_config": autoscaling_config(scaling)}
