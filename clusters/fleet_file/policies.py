"""What a routing policy's preset needs, and what it has no use for."""

from collections.abc import Iterator, Set
from typing import Any

from clusters.fleet_file.document import Mistake
from clusters.fleet_file.draft import Part
from clusters.fleet_file.names import items, missing, repeated
from clusters.fleet_file.shape import quoted
from clusters.routing import Preset

NEEDS = {
    Preset.WEIGHTED: ("weights", "weights: {SITE: 60, OTHER: 40}"),
    Preset.PRIMARY_STANDBY: ("order", "order: [SITE, OTHER]"),
}
"""The setting without which a preset says nothing, and how it looks."""


def misset(fleet: Part) -> Iterator[Mistake]:
    """Policies that don't say what their preset needs, and places that name such a preset bare."""
    sites = {site["name"] for site in fleet["sites"]}
    policies = fleet["routing"]["policies"]
    for policy in (policies or {}).values():
        yield from _settings(policy)
        yield from _weights(policy, sites)
        yield from _order(policy, sites)
    if policies is not None:
        for part in (fleet["routing"], *fleet["models"], *fleet["keys"]):
            yield from _bare(part, policies)


def _settings(policy: Part) -> Iterator[Mistake]:
    if policy["preset"] is None:
        return
    for preset, (field, example) in NEEDS.items():
        if policy["preset"] != preset and policy[field]:
            yield policy.mistake(field, f"only {preset} uses {field}", f"write `preset: {preset}`, or remove {field}")
        if policy["preset"] == preset and policy[field] is not None and not policy[field]:
            yield policy.mistake(field, f"missing: {preset} needs {field}", f"add `{example}`")


def _weights(policy: Part, sites: Set[Any]) -> Iterator[Mistake]:
    weights = policy["weights"]
    if not weights:
        return
    yield from missing([((*policy.where("weights"), site), site) for site in weights], "site", sites)
    for site, weight in weights.items():
        if weight < 0:
            at = (*policy.where("weights"), site)
            yield Mistake(at, f"{quoted(weight)} is not a share", "write 0 or more")
    if all(weight == 0 for weight in weights.values()):
        yield policy.mistake("weights", "every share is 0", "give at least one site more than 0")


def _order(policy: Part, sites: Set[Any]) -> Iterator[Mistake]:
    order = items(policy, "order")
    yield from missing(order, "site", sites)
    yield from repeated("site", order, fix="name each site once")


def _bare(part: Part, policies: dict[str, Part]) -> Iterator[Mistake]:
    name = part["policy"]
    if name in NEEDS and name not in policies:
        field, example = NEEDS[name]
        fix = f"name a policy of routing.policies that has `preset: {name}` and `{example}`"
        yield part.mistake("policy", f"{name} alone says nothing of its {field}", fix)
