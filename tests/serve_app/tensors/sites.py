"""A site that serves programs of tensors over loopback: the deployment's own application, and a made-up agent."""

import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.gate import TokenGate
from serve_app.tensors.batcher import Batcher
from serve_app.tensors.program import Program
from serve_app.tensors.site_app import TensorRoutes
from tests.serve_app.tensors.batchers import kept
from tests.serve_app.waiting import wait_for

RELEASE = "0" * 12
TOKEN = "site-token"
MAX_ROWS = 8


class TensorSite:
    """`failing` statuses are what its next inferences get instead."""

    def __init__(self, name: str, releases: Mapping[str, Path], wait_s: float = 0.005):
        self.name = name
        self.models = tuple(releases)
        self.failing: list[int] = []
        self.asked: list[str] = []
        """Paths of inferences and metadata."""
        self.batchers = {
            model: kept(Program.load(release, "cpu"), MAX_ROWS, wait_s) for model, release in releases.items()
        }
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(self._app(), log_level="critical", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def _app(self) -> ASGIApp:
        mounts = [
            Mount(f"/models/{model}", self._noting(TensorRoutes(model, RELEASE, *self._parts(model)).app()))
            for model in self.models
        ]
        state = Route("/fleet/state", self._state, methods=["GET", "POST"])
        return TokenGate(Starlette(routes=[state, *mounts]), TOKEN)

    def _parts(self, model: str) -> tuple[Any, Batcher, int]:
        batcher = self.batchers[model]
        return batcher._program.signature, batcher, MAX_ROWS

    def _noting(self, app: ASGIApp) -> ASGIApp:
        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            self.asked.append(scope["path"])
            if self.failing:
                await Response(status_code=self.failing.pop(0), content=b"{}")(scope, receive, send)
            else:
                await app(scope, receive, send)

        return noted

    async def _state(self, request: Request) -> Response:
        placement = {
            "release": RELEASE,
            "readiness": "ready",
            "replicas": 1,
            "target_replicas": 1,
            "capacity": MAX_ROWS,
            "running": 0,
            "waiting": 0,
        }
        placements = [{"model": model, **placement} for model in self.models]
        return JSONResponse({"site": self.name, "at": time.time(), "placements": placements})
