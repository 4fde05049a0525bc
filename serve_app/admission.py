"""From a client's bytes to a call: who asks, for what, and under which rules. The same behind every door."""

import random
import re
from collections.abc import Sequence

from clusters.spec import FleetSpec, KeySpec, ModelSpec
from serve_app.auth import Keyring
from serve_app.errors import BadRequest, ModelNotFound, NotPermitted
from serve_app.openai import ABSENT, ROUTES, Body, is_continuable, limit_of, prompt_of, read_body
from serve_app.relay.call import Call
from serve_app.routing.facts import Facts
from serve_app.routing.prefixes import hash_blocks

ONLY_SITE = b"x-rayfleet-site-only"
POLICY = b"x-rayfleet-policy"
JURISDICTION = b"x-rayfleet-jurisdiction"
SESSION = b"x-rayfleet-session"
READ = frozenset(
    (
        b"authorization",
        b"content-encoding",
        b"content-type",
        b"x-api-key",
        b"x-request-id",
        ONLY_SITE,
        POLICY,
        JURISDICTION,
        SESSION,
    )
)
SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
BYTES_PER_TOKEN = 4

Headers = Sequence[tuple[bytes, bytes]]


class Admission:
    """Holds what fleet.yaml says of keys and models."""

    def __init__(self, spec: FleetSpec, keyring: Keyring):
        self._spec = spec
        self._keyring = keyring
        self._models = {model.name: model for model in spec.models}
        self._targets = {site.name for site in spec.sites} | {hosted.name for hosted in spec.hosted}

    def admit(self, path: str, headers: Headers, body: bytes) -> Call:
        """Raises ApiError."""
        given = {name: value for name, value in headers if name in READ}
        key = self._keyring.authenticate(given.get(b"authorization"), given.get(b"x-api-key"))
        if given.get(b"content-encoding", b"identity") != b"identity":
            raise BadRequest("The request body must not be compressed.", param="content-encoding")
        route = ROUTES[path]
        fields = read_body(route, given.get(b"content-type", b""), body)
        model = self._model(fields.model, key)
        if route.task is not None and route.task not in model.tasks:
            raise BadRequest(f"The model {model.name!r} does not support {route.task}.", param="model")
        continuable = self._spec.routing.continuation.enabled and is_continuable(path, fields, body)
        return Call(
            facts=self._facts(path, key, model, fields, given, len(body)),
            route=path,
            headers=list(headers),
            body=body,
            request_id=request_id(given.get(b"x-request-id")),
            key=key.name,
            continuable=continuable,
            asks_ids=continuable and fields.return_token_ids is None,
        )

    def _facts(
        self, path: str, key: KeySpec, model: ModelSpec, fields: Body, given: dict[bytes, bytes], size: int
    ) -> Facts:
        route = ROUTES[path]
        prompt = prompt_of(route, fields)
        session = given.get(SESSION)
        # What a chat template puts before the messages belongs to the beginning, too.
        seed = model.name.encode() if fields.tools is ABSENT else model.name.encode() + b" " + bytes(fields.tools)
        return Facts(
            model=model.name,
            task=route.task,
            stream=bool(fields.stream),
            body_bytes=size,
            only_site=self._only_site(given.get(ONLY_SITE)) if ONLY_SITE in given else None,
            prompt_tokens=len(prompt) // BYTES_PER_TOKEN,
            max_tokens=limit_of(fields),
            blocks=hash_blocks(seed, prompt),
            session=hash((seed, session)) if session else None,
            tenant=key.billed_to,
            jurisdictions=_jurisdictions(key, model, given.get(JURISDICTION)),
            hosted=key.hosted,
            policy=self._policy(given.get(POLICY)) or key.policy or model.policy,
        )

    def _model(self, name: str, key: KeySpec) -> ModelSpec:
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(name, self._models)
        if key.models and name not in key.models:
            raise NotPermitted(f"This key may not use the model {name!r}.", param="model")
        return model

    def _only_site(self, given: bytes | None) -> str | None:
        site = (given or b"").decode("latin-1")
        if site not in self._targets:
            raise BadRequest(f"The fleet has no site {site!r}.", param=ONLY_SITE.decode())
        return site

    def _policy(self, given: bytes | None) -> str | None:
        if given is None:
            return None
        name = given.decode("latin-1")
        if self._spec.routing.named_policy(name) is None:
            raise BadRequest(f"The fleet has no routing policy {name!r}.", param=POLICY.decode())
        return name


def _jurisdictions(key: KeySpec, model: ModelSpec, header: bytes | None) -> frozenset[str] | None:
    """Every rule narrows; none widens."""
    if not key.jurisdictions and not model.jurisdictions and header is None:
        return None
    rules = [frozenset(rule) for rule in (key.jurisdictions, model.jurisdictions) if rule]
    if header is not None:
        named = frozenset(part.strip() for part in header.decode("latin-1").lower().split(",") if part.strip())
        if not named:
            raise BadRequest("Name at least one jurisdiction, or leave the header out.", param=JURISDICTION.decode())
        rules.append(named)
    return frozenset.intersection(*rules)


def request_id(given: bytes | None) -> str:
    """The client's own name for its request, or a new one when there is none that may stand in a log line."""
    if given is not None and SANE_ID.fullmatch(given):
        return given.decode()
    return f"{random.getrandbits(128):032x}"
