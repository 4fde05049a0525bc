"""From a client's bytes to a call: who asks, for what, and under which rules. The same behind every door."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clusters.spec import FleetSpec, KeySpec, ModelSpec
from serve_app.auth import Keyring
from serve_app.errors import BadRequest, ModelNotFound, NotPermitted
from serve_app.openai import ABSENT, ROUTES, TENSORS, Body, Route, is_continuable, limit_of, prompt_of, read_body
from serve_app.relay.call import Call
from serve_app.relay.headers import Passing
from serve_app.routing.facts import Facts
from serve_app.routing.prefixes import hash_blocks
from serve_app.tensors.protocol import model_path

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


@dataclass(frozen=True, slots=True)
class Caller:
    """Everything that a request's head says, whatever the body is."""

    key: KeySpec
    content_type: bytes
    request_id: str | None
    only_site: str | None
    policy: str | None
    jurisdictions: frozenset[str] | None
    """Of the header."""
    session: bytes | None
    passing: Passing


class Admission:
    """Holds what fleet.yaml says of keys and models."""

    def __init__(self, spec: FleetSpec, keyring: Keyring):
        self._spec = spec
        self._keyring = keyring
        self._models = {model.name: model for model in spec.models}
        self._targets = {site.name for site in spec.sites} | {hosted.name for hosted in spec.hosted}

    def admit(self, path: str, headers: Headers, body: bytes, memo: dict[str, Any]) -> Call:
        """`memo` is kept for the same headers. Raises ApiError."""
        caller: Caller | None = memo.get("caller")
        if caller is None:
            caller = memo["caller"] = self._caller(headers)
        of_tensors = model_path(path)
        if of_tensors is None:
            route = ROUTES[path]
            fields = read_body(route, caller.content_type, body)
        else:
            route, fields = TENSORS, Body(model=of_tensors.model)
        model = self._model(fields.model, caller.key)
        if of_tensors is not None and of_tensors.version not in (None, model.release):
            raise ModelNotFound(f"{model.name} {of_tensors.version}", [f"{model.name} {model.release}"])
        if route.task is not None and route.task not in model.tasks:
            raise BadRequest(f"The model {model.name!r} does not support {route.task}.", param="model")
        continuable = self._spec.routing.continuation.enabled and is_continuable(path, fields, body)
        return Call(
            facts=self._facts(route, caller, model, fields, len(body)),
            route=path,
            passing=caller.passing,
            body=body,
            request_id=caller.request_id or f"{random.getrandbits(128):032x}",
            key=caller.key.name,
            continuable=continuable,
            has_stops=fields.stop is not ABSENT,
            asks_ids=continuable and fields.return_token_ids is None,
        )

    def _caller(self, headers: Headers) -> Caller:
        given = {name: value for name, value in headers if name in READ}
        key = self._keyring.authenticate(given.get(b"authorization"), given.get(b"x-api-key"))
        if given.get(b"content-encoding", b"identity") != b"identity":
            raise BadRequest("The request body must not be compressed.", param="content-encoding")
        return Caller(
            key=key,
            content_type=given.get(b"content-type", b""),
            request_id=request_id(given.get(b"x-request-id")),
            only_site=self._only_site(given.get(ONLY_SITE)),
            policy=self._policy(given.get(POLICY)),
            jurisdictions=_named_jurisdictions(given.get(JURISDICTION)),
            session=given.get(SESSION),
            passing=Passing.of(headers),
        )

    def _facts(self, route: Route, caller: Caller, model: ModelSpec, fields: Body, size: int) -> Facts:
        prompt = prompt_of(route, fields)
        key, session = caller.key, caller.session
        # Tenants learn nothing of each other's prompts. What a chat template puts before the messages counts, too.
        seed = f"{model.name} {key.billed_to} ".encode()
        if fields.tools is not ABSENT:
            seed += bytes(fields.tools)
        return Facts(
            model=model.name,
            task=route.task,
            stream=bool(fields.stream),
            body_bytes=size,
            only_site=caller.only_site,
            prompt_tokens=len(prompt) // BYTES_PER_TOKEN,
            max_tokens=limit_of(fields),
            blocks=hash_blocks(seed, prompt),
            session=hash((seed, session)) if session else None,
            tenant=key.billed_to,
            jurisdictions=_jurisdictions(key, model, caller.jurisdictions),
            hosted=key.hosted,
            policy=caller.policy or key.policy or model.policy,
        )

    def _model(self, name: str, key: KeySpec) -> ModelSpec:
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(name, self._models)
        if key.models and name not in key.models:
            raise NotPermitted(f"This key may not use the model {name!r}.", param="model")
        return model

    def _only_site(self, given: bytes | None) -> str | None:
        if given is None:
            return None
        site = given.decode("latin-1")
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


def _jurisdictions(key: KeySpec, model: ModelSpec, named: frozenset[str] | None) -> frozenset[str] | None:
    """Every rule narrows; none widens."""
    if not key.jurisdictions and not model.jurisdictions:
        return named
    rules = [frozenset(rule) for rule in (key.jurisdictions, model.jurisdictions) if rule]
    return frozenset.intersection(*rules, *(() if named is None else (named,)))


def _named_jurisdictions(header: bytes | None) -> frozenset[str] | None:
    if header is None:
        return None
    named = frozenset(part.strip() for part in header.decode("latin-1").lower().split(",") if part.strip())
    if not named:
        raise BadRequest("Name at least one jurisdiction, or leave the header out.", param=JURISDICTION.decode())
    return named


def request_id(given: bytes | None) -> str | None:
    """The client's own name for its request, unless that may not stand in a log line."""
    return given.decode() if given is not None and SANE_ID.fullmatch(given) else None
