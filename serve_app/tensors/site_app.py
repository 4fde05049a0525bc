"""The Open Inference Protocol v2 at a site, for one model."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app import errors
from serve_app.body import ClientLeft, read_body
from serve_app.errors import BadRequest, Busy, Internal, ModelNotFound
from serve_app.tensors.batcher import Batcher
from serve_app.tensors.errors import Broken, NoMemory, Unable
from serve_app.tensors.protocol import server_metadata
from serve_app.tensors.signature import Signature
from serve_app.tensors.wire import BINARY, HEADER_LENGTH, read_request, write_answer

MAX_BODY_BYTES = 2**26
MAX_BATCHES = 64
"""That one request's rows may fill."""
PLATFORM = "pytorch_export"
LONG_BYTES = 2**18
"""Of a body, or of outputs: they are read and written in a thread, as other requests should not wait for that."""
T = TypeVar("T")


class TensorRoutes:
    """Of one model and its one version, which is the release."""

    def __init__(self, model: str, release: str, signature: Signature, batcher: Batcher, max_rows: int):
        self._model = model
        self._release = release
        self._signature = signature
        self._batcher = batcher
        self._most = MAX_BATCHES * max_rows

    def app(self) -> Starlette:
        app = Starlette(
            routes=[
                Route("/v2", self.server),
                Route("/v2/health/live", self.live),
                Route("/v2/health/ready", self.ready),
                *(
                    Route(f"/v2/models/{{name}}{versioned}{suffix}", endpoint, methods=methods)
                    for versioned in ("", "/versions/{version}")
                    for suffix, endpoint, methods in (
                        # The ingress relays by POST.
                        ("", self.metadata, ["GET", "POST"]),
                        ("/ready", self.model_ready, ["GET"]),
                        ("/infer", self.infer, ["POST"]),
                    )
                ),
            ]
        )
        errors.install(app, errors.tensor_error_body)
        return app

    async def server(self, request: Request) -> Response:
        return JSONResponse(server_metadata())

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        return JSONResponse({"ready": self._works()}, 200 if self._works() else 503)

    async def model_ready(self, request: Request) -> Response:
        self._check(request)
        return JSONResponse({"name": self._model, "ready": self._works()}, 200 if self._works() else 503)

    async def metadata(self, request: Request) -> Response:
        self._check(request)
        signature: dict[str, Any] = self._signature.model_dump(mode="json", exclude_none=True)
        return JSONResponse(
            {"name": self._model, "versions": [self._release], "platform": PLATFORM, **signature},
        )

    async def infer(self, request: Request) -> Response:
        self._check(request)
        headers = Headers(scope=request.scope)
        try:
            body = await read_body(request.receive, headers, MAX_BODY_BYTES)
        except ClientLeft:
            return Response()
        asked = await _aside(len(body), lambda: read_request(self._signature, body, headers.get(HEADER_LENGTH)))
        rows = len(asked.inputs[0])
        if rows > self._most:
            raise BadRequest(f"{rows} rows are too many for one request: send at most {self._most}.")
        try:
            outputs = await self._batcher.infer(asked.inputs)
        except Unable as failure:
            raise BadRequest(f"{self._model}: {failure}.") from failure
        except NoMemory as failure:
            raise Busy(f"{self._model}: {failure}.") from failure
        except Broken as failure:
            raise Internal from failure
        answer = await _aside(
            sum(output.nbytes for output in outputs),
            lambda: write_answer(self._model, self._release, asked, self._signature, outputs),
        )
        if answer.header_length is None:
            return Response(answer.body, media_type="application/json")
        return Response(answer.body, headers={HEADER_LENGTH: str(answer.header_length)}, media_type=BINARY)

    def _works(self) -> bool:
        try:
            self._batcher.check()
        except Broken:
            return False
        return True

    def _check(self, request: Request) -> None:
        if request.path_params["name"] != self._model:
            raise ModelNotFound(request.path_params["name"], [self._model])
        if request.path_params.get("version", self._release) != self._release:
            raise ModelNotFound(f"{self._model} {request.path_params['version']}", [f"{self._model} {self._release}"])


async def _aside(size: int, work: Callable[[], T]) -> T:
    """Elsewhere than on the loop, where it is long."""
    return await asyncio.to_thread(work) if size > LONG_BYTES else work()
