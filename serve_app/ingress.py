"""Composition root of the ingress's Serve application. `config.yaml` names `build` as its import path."""

import os
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from clusters.spec import FleetSpec, Spec
from serve_app.gateway import Gateway, site_tokens
from serve_app.ray_metrics import RayMetrics

MAX_ONGOING_REQUESTS = 10_000
"""Per replica. A waiting stream costs little, and the sites, not Serve, say when there is too much to do."""

REPLICA_ENV = {
    # The gateway shares Serve's own event loop: between two threads Serve puts a queue without bounds, in which a slow
    # client's answer would pile up, and hands every chunk over at a price.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # Lines of Serve's access log that are written at once.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "100",
}


class IngressArgs(Spec):
    """The application's `args`."""

    fleet: FleetSpec


class Ingress:
    """One replica of the endpoint."""

    def __init__(self, fleet: FleetSpec):
        self._gateway = Gateway(fleet, site_tokens(fleet, os.environ), RayMetrics())

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._gateway.app

    def check_health(self) -> None:
        self._gateway.check()


def build(args: dict[str, Any]) -> Application:
    """The ingress of one fleet. Its spec travels as plain data, and every replica builds its own gateway."""
    fleet = IngressArgs.model_validate(args).fleet
    deployment = serve.deployment(
        name="Ingress",
        num_replicas=fleet.ingress.replicas,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"runtime_env": {"env_vars": REPLICA_ENV}},
    )(serve.ingress()(Ingress))
    return deployment.bind(fleet)
