"""Fleets for faults: who is asked first, who may ask, and what the clients' side and the servers' side count."""

import hashlib
from collections.abc import Sequence
from typing import Any

from clusters.spec import FleetSpec, HostedSpec, KeySpec
from tests.fakes.engine.handle import Engine
from tests.serve_app.asking import get
from tests.serve_app.conftest import IN_ORDER, Endpoint, fleet_spec


def in_order(engines: Sequence[Engine], **routing: Any) -> FleetSpec:
    """East is asked first, then west, then north."""
    policies = {**IN_ORDER["policies"], **routing.pop("policies", {})}
    return fleet_spec(engines, **{"policy": "in_order", "policies": policies, **routing})


def with_context(spec: FleetSpec, **tokens: int) -> FleetSpec:
    """Placements at the named sites have a context of so many tokens."""
    placements = tuple(
        each.model_copy(update={"engine": {"max_model_len": tokens[each.site]}}) if each.site in tokens else each
        for each in spec.placements
    )
    return spec.model_copy(update={"placements": placements})


def with_keys(spec: FleetSpec, **keys: dict[str, Any]) -> FleetSpec:
    """One more key per name; the secret is `sk-` and the name."""
    more = [KeySpec(name=name, sha256=hashlib.sha256(f"sk-{name}".encode()).hexdigest(), **keys[name]) for name in keys]
    return spec.model_copy(update={"keys": (*spec.keys, *more)})


def with_hosted(spec: FleetSpec, *hosted: HostedSpec) -> FleetSpec:
    return spec.model_copy(update={"hosted": hosted})


def hosted(name: str, url: str, **fields: Any) -> HostedSpec:
    """A target that has `chat` under a name of its own, for 1 and 2 USD per million tokens."""
    model = {"model": "chat", "name": f"{name}-model", "usd_per_million_input": 1, "usd_per_million_output": 2}
    settings = {"name": name, "url": url, "key_env": "KEY", "jurisdiction": "ch", "models": [model]}
    return HostedSpec.model_validate({**settings, **fields})


def with_log(spec: FleetSpec, directory: str) -> FleetSpec:
    return spec.model_copy(update={"ingress": spec.ingress.model_copy(update={"request_log": directory})})


def requests(*engines: Engine) -> list[int]:
    """How many each of them has seen."""
    return [len(engine.seen().requests) for engine in engines]


def report(endpoint: Endpoint, site: str) -> Any:
    """What `/fleet/sites` says of it."""
    return next(each for each in get(endpoint, "/fleet/sites").json if each["site"] == site)
