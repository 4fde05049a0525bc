"""The Open Inference Protocol's smaller routes at the ingress, answered from what it knows of its sites."""

from collections.abc import Callable

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from starlette.requests import Request

from clusters.spec import KeySpec
from serve_app.admission import Admission
from serve_app.relay.relay import Relay
from serve_app.report import SiteReport
from serve_app.tensors.protocol import server_metadata

MODELS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
METADATA = MODELS
"""Relayed: only sites know the shapes of a release."""
INFER = tuple(f"{path}/infer" for path in MODELS)


def tensor_routes(
    admission: Admission,
    relay: Relay,
    reports: Callable[[], tuple[SiteReport, ...]],
    authenticate: Callable[[Request], KeySpec],
) -> APIRouter:
    router = APIRouter(dependencies=[Depends(authenticate)])

    @router.get("/v2")
    async def server() -> JSONResponse:
        return JSONResponse(server_metadata())

    @router.get("/v2/health/live")
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    @router.get("/v2/health/ready")
    async def ready() -> JSONResponse:
        healthy = any(report.healthy for report in reports())
        return JSONResponse({"ready": healthy}, 200 if healthy else 503)

    @router.get("/v2/models/{name}/ready")
    @router.get("/v2/models/{name}/versions/{version}/ready")
    async def model_ready(name: str, request: Request) -> JSONResponse:
        """Whether some site would take a request of this key for the model now."""
        call = admission.admit(request.url.path, request.headers.raw, b"", {})
        able = relay.explain(call.facts).target is not None
        return JSONResponse({"name": name, "ready": able}, 200 if able else 503)

    return router
