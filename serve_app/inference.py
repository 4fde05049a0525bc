"""The endpoint of OpenAI's inference routes."""

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from clusters.spec import FleetSpec, Task
from serve_app.auth import Keyring
from serve_app.body import read_body
from serve_app.errors import BadRequest
from serve_app.openai import find_model, read_facts
from serve_app.relay.attempt import Call
from serve_app.relay.client import ClientLeft, while_client_stays
from serve_app.relay.relay import Relay
from serve_app.request_id import request_id
from serve_app.routing.facts import Facts

ONLY_SITE = "x-rayfleet-site-only"


@dataclass(frozen=True)
class Inference:
    """One route, as a raw ASGI application: the answer streams without passing a response object."""

    route: str
    task: Task
    spec: FleetSpec
    keyring: Keyring
    relay: Relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self.keyring.authenticate(headers.get("authorization"))
        try:
            body = await read_body(receive, headers, self.spec.ingress.max_body_bytes)
            facts = read_facts(self.task, body, headers.get(ONLY_SITE))
            self._check(facts)
            call = Call(facts, self.route, scope["headers"], body, request_id(headers))
            await while_client_stays(receive, self.relay.serve(call, send))
        except ClientLeft:
            return

    def _check(self, facts: Facts) -> None:
        if facts.task not in find_model(self.spec, facts.model).tasks:
            raise BadRequest(f"The model {facts.model!r} does not support {facts.task}.", param="model")
        if facts.only_site is not None and facts.only_site not in [site.name for site in self.spec.sites]:
            raise BadRequest(f"The fleet has no site {facts.only_site!r}.", param=ONLY_SITE)
