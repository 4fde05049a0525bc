"""The ingress's HTTP routes."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clusters.spec import FleetSpec
from serve_app import errors
from serve_app.auth import Keyring
from serve_app.inference import Inference
from serve_app.openai import ROUTES, find_model, model_card, model_list
from serve_app.relay.relay import Relay
from serve_app.report import SiteReport
from serve_app.telemetry import Prometheus

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Parts:
    """What the routes need."""

    spec: FleetSpec
    keyring: Keyring
    relay: Relay
    prometheus: Prometheus
    reports: Callable[[], tuple[SiteReport, ...]]


def build_app(parts: Parts, lifespan: Lifespan) -> FastAPI:
    """Every route but `/healthz` wants a key. No page describes the API to strangers."""
    app = FastAPI(title="rayfleet", openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    errors.install(app)
    for route, task in ROUTES.items():
        endpoint = Inference(route, task, parts.spec, parts.keyring, parts.relay)
        app.router.routes.append(Route(route, endpoint, methods=["POST"]))
    app.include_router(_with_key(parts))
    app.include_router(_open(parts))
    return app


def _with_key(parts: Parts) -> APIRouter:
    def authenticate(request: Request) -> None:
        parts.keyring.authenticate(request.headers.get("authorization"))

    router = APIRouter(dependencies=[Depends(authenticate)])

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        return model_list(parts.spec)

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return model_card(parts.spec, find_model(parts.spec, name))

    @router.get("/fleet/sites")
    async def sites() -> tuple[SiteReport, ...]:
        return parts.reports()

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(parts.prometheus.render(), media_type=CONTENT_TYPE_LATEST)

    return router


def _open(parts: Parts) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> JSONResponse:
        sites = {report.site: report.healthy for report in parts.reports()}
        return JSONResponse({"healthy": any(sites.values()), "sites": sites}, 200 if any(sites.values()) else 503)

    return router
