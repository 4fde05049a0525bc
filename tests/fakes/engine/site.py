"""The site behind its door: which answer a request gets, what the state says, and a batch of limited size."""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from clusters.state import PlacementState, Readiness, SiteState
from tests.fakes.engine import lookups
from tests.fakes.engine.answers import Streamed, Whole, dump, error_body, refusal
from tests.fakes.engine.asked import Circumstances, Refused, ask_chat, ask_completion, check_model, json_object
from tests.fakes.engine.books import Books
from tests.fakes.engine.chat import answer_chat
from tests.fakes.engine.completions import answer_completion
from tests.fakes.engine.faults import Behaviour, Fault
from tests.fakes.engine.messages import answer_messages, ask_messages, count_tokens, refuse_messages
from tests.fakes.engine.responses import answer_response, ask_response
from tests.fakes.engine.wire import Request

STATE_PATH = "/fleet/state"
UNAUTHORIZED = Whole(
    dump(error_body("This endpoint answers only to the fleet's ingress.", 401, "authentication_error")), 401
)
NOT_FOUND = Whole(dump(error_body("Not Found", 404, "Not Found")), 404)


class Site:
    """One site. `plan` holds faults for the next requests."""

    def __init__(self, name: str, models: Sequence[str], token: str, release: str):
        self.name = name
        self.books = Books()
        self.behaviour = Behaviour()
        self.plan: deque[Fault] = deque()
        self._models = tuple(models)
        self._token = token
        self._release = release
        self._freed = asyncio.Event()

    def next_fault(self, path: str) -> Fault:
        """The first planned one that is meant for this path, used up by it."""
        for fault in self.plan:
            if path.endswith(fault.only):
                self.plan.remove(fault)
                return fault
        otherwise = self.behaviour.otherwise
        return otherwise if path.endswith(otherwise.only) else Fault()

    def answer(self, request: Request, fault: Fault, number: int) -> Whole | Streamed:
        if _credentials(request.headers) != f"Bearer {self._token}":
            return UNAUTHORIZED
        if fault.page is not None:
            return Whole(fault.page.encode(), fault.status or 502, "text/html")
        if fault.status is not None:
            message = f"{self.name} says {fault.status}"
            return Whole(dump(error_body(message, fault.status, HTTPStatus(fault.status).phrase)), fault.status)
        if request.path == STATE_PATH:
            return Whole(self._state())
        model, _, route = request.path.removeprefix("/models/").partition("/")
        if not request.path.startswith("/models/") or model not in self._models:
            return NOT_FOUND
        try:
            return self._routed(f"/{route}", request, self._circumstances(request, fault, number, model))
        except Refused as refused:
            return _refuse(route, refused)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return _refuse(route, Refused(f"1 validation error:\n  {error!r}", kind="Bad Request"))

    @asynccontextmanager
    async def batched(self, model: str) -> AsyncIterator[None]:
        """Waits for a place in the batch, and holds it."""
        self.books.waiting[model] += 1
        try:
            while self.books.running.total() >= self.behaviour.max_num_seqs:
                await self._freed.wait()
        finally:
            self.books.waiting[model] -= 1
        with self.books.run(model):
            try:
                yield
            finally:
                self.wake()

    def wake(self) -> None:
        """Those who wait look again."""
        self._freed.set()
        self._freed = asyncio.Event()

    def _circumstances(self, request: Request, fault: Fault, number: int, model: str) -> Circumstances:
        return Circumstances(
            request_id=request.headers.get("x-request-id", f"{self.name}-{number}"),
            models=(model,),
            behaviour=self.behaviour,
            fault=fault,
            chance=number,
            fingerprint=f"vllm-0.29.0-{self.name}",
        )

    def _routed(self, route: str, request: Request, circumstances: Circumstances) -> Whole | Streamed:
        """Raises Refused."""
        if route == "/v1/models":
            return lookups.models(circumstances.models, circumstances.behaviour.max_model_len)
        if route == "/v1/audio/transcriptions":
            return lookups.transcribe(request.headers.get("content-type", ""), request.body, circumstances)
        fields = json_object(request.body)
        check_model(fields, circumstances.models)
        match route:
            case "/v1/chat/completions":
                return answer_chat(ask_chat(fields, circumstances), circumstances.fingerprint)
            case "/v1/completions":
                return answer_completion(ask_completion(fields, circumstances), circumstances.fingerprint)
            case "/v1/messages":
                return answer_messages(ask_messages(fields, circumstances))
            case "/v1/messages/count_tokens":
                return count_tokens(ask_messages(fields, circumstances))
            case "/v1/responses":
                return answer_response(ask_response(fields, circumstances))
            case "/v1/embeddings":
                return lookups.embed(fields, circumstances)
            case "/score" | "/v1/score":
                return lookups.score(fields, circumstances)
            case "/rerank" | "/v1/rerank" | "/v2/rerank":
                return lookups.rerank(fields, circumstances)
            case "/tokenize":
                return lookups.tokenize(fields, circumstances)
            case "/detokenize":
                return lookups.detokenize(fields, circumstances)
            case _:
                return NOT_FOUND

    def _state(self) -> bytes:
        behaviour = self.behaviour
        state: dict[str, Any] = SiteState(
            site=self.name,
            at=time.time() - behaviour.state_age_s,
            drain_s=behaviour.drain_s,
            placements=tuple(self._placement(model) for model in self._models),
        ).model_dump(mode="json")
        state["placements"] = [{**placement, **behaviour.claims} for placement in state["placements"]]
        return json.dumps(state).encode()

    def _placement(self, model: str) -> PlacementState:
        return PlacementState(
            model=model,
            release=self._release,
            readiness=Readiness.READY,
            replicas=1,
            target_replicas=1,
            capacity=self.behaviour.max_num_seqs,
            running=self.books.running[model],
            waiting=self.books.waiting[model],
        )


def _credentials(headers: Mapping[str, str]) -> str:
    """Anthropic's API has them in a header of its own."""
    return headers.get("authorization") or f"Bearer {headers.get('x-api-key')}"


def _refuse(route: str, refused: Refused) -> Whole:
    return refuse_messages(refused) if route.startswith("v1/messages") else refusal(refused)
