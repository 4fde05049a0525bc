"""The ingress's HTTP routes."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clusters.spec import FleetSpec, KeySpec
from clusters.state import DrainOrder
from serve_app import errors
from serve_app.admission import Admission
from serve_app.auth import Keyring
from serve_app.body import ClientLeft, read_body
from serve_app.errors import BadRequest, NotPermitted, RouteNotFound, UpstreamFailed
from serve_app.inference import AsgiInference, Inference
from serve_app.metering.prometheus import Prometheus
from serve_app.openai import ROUTES, find_model, model_card, model_list
from serve_app.relay.relay import Relay
from serve_app.report import SiteReport
from serve_app.routing.explanation import Explanation
from serve_app.states import DrainFailed, HttpStates
from serve_app.tensors.ingress_routes import INFER, METADATA, tensor_routes
from serve_app.tensors.protocol import is_infer

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
DEFAULT_ROUTE = "/v1/chat/completions"


@dataclass(frozen=True)
class Parts:
    """What the routes need."""

    spec: FleetSpec
    keyring: Keyring
    admission: Admission
    inference: Inference
    relay: Relay
    states: HttpStates
    reports: Callable[[], tuple[SiteReport, ...]]


def build_app(parts: Parts, prometheus: Prometheus, lifespan: Lifespan) -> FastAPI:
    """Every route but `/healthz` wants a key. No page describes the API to strangers."""
    app = FastAPI(title="rayfleet", openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    errors.install(app)
    inference = AsgiInference(parts.inference)
    for path in (*ROUTES, *INFER):
        app.router.routes.append(Route(path, inference, methods=["POST"]))
    for path in METADATA:
        app.router.routes.append(Route(path, inference, methods=["GET"]))

    def authenticate(request: Request) -> KeySpec:
        given = {name: value for name, value in request.headers.raw if name in (b"authorization", b"x-api-key")}
        return parts.keyring.authenticate(given.get(b"authorization"), given.get(b"x-api-key"))

    app.include_router(_fleet(parts, authenticate))
    app.include_router(_choices(parts, authenticate))
    app.include_router(tensor_routes(parts.admission, parts.relay, parts.reports, authenticate))
    app.include_router(_metrics(parts, prometheus, authenticate))
    app.include_router(_open(parts))
    return app


def _fleet(parts: Parts, authenticate: Callable[[Request], KeySpec]) -> APIRouter:
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

    @router.post("/fleet/sites/{site}/drain")
    async def drain(site: str, request: Request, key: Annotated[KeySpec, Depends(authenticate)]) -> dict[str, Any]:
        if not key.operator:
            raise NotPermitted("Only keys with `operator: true` may drain sites.")
        if site not in [each.name for each in parts.spec.sites]:
            raise RouteNotFound(f"The fleet has no site {site!r}.")
        order = _order(await _body(request, parts))
        try:
            await parts.states.drain(site, order.deadline_s)
        except DrainFailed as error:
            raise UpstreamFailed(f"{error}.") from error
        return {"site": site, "deadline_s": order.deadline_s}

    return router


def _choices(parts: Parts, authenticate: Callable[[Request], KeySpec]) -> APIRouter:
    router = APIRouter(dependencies=[Depends(authenticate)])

    @router.post("/fleet/route")
    async def explain(request: Request, route: str = DEFAULT_ROUTE) -> Explanation:
        """Where the request in the body would go, and why. Nothing is sent."""
        if route not in ROUTES and not is_infer(route):
            raise BadRequest(f"There is no inference route {route!r}.", param="route")
        body = await _body(request, parts)
        call = parts.admission.admit(route, request.headers.raw, body, {})
        return parts.relay.explain(call.facts)

    @router.get("/fleet/route/{request_id}")
    async def explained(request_id: str, key: Annotated[KeySpec, Depends(authenticate)]) -> Explanation:
        choice = parts.relay.recent.get(request_id)
        if choice is None or not (key.operator or choice.facts.tenant == key.billed_to):
            kept = parts.spec.routing.explained_requests
            raise RouteNotFound(f"Request {request_id!r} is not among this replica's latest {kept}.")
        return choice.explanation()

    return router


def _metrics(parts: Parts, prometheus: Prometheus, authenticate: Callable[[Request], KeySpec]) -> APIRouter:
    router = APIRouter(dependencies=[Depends(authenticate)])

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(prometheus.render(), media_type=CONTENT_TYPE_LATEST)

    return router


def _open(parts: Parts) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> JSONResponse:
        sites = {report.site: report.healthy for report in parts.reports()}
        return JSONResponse({"healthy": any(sites.values()), "sites": sites}, 200 if any(sites.values()) else 503)

    return router


async def _body(request: Request, parts: Parts) -> bytes:
    try:
        return await read_body(request.receive, request.headers, parts.spec.ingress.max_body_bytes)
    except ClientLeft:
        return b""


def _order(body: bytes) -> DrainOrder:
    try:
        return DrainOrder.model_validate(json.loads(body))
    except (ValueError, ValidationError) as error:
        raise BadRequest(
            "'deadline_s' is required: seconds, or null to end the draining.", param="deadline_s"
        ) from error
