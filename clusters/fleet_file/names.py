"""Names: each is given once, and what is named is there."""

from collections.abc import Iterator, Set
from typing import Any

from clusters.fleet_file.document import Mistake, Where
from clusters.fleet_file.draft import Part
from clusters.fleet_file.shape import did_you_mean, quoted
from clusters.routing import Preset


def duplicates(fleet: Part) -> Iterator[Mistake]:
    """What is there twice."""
    # Hosted targets stand beside sites wherever a request may go.
    yield from repeated(
        "the name", [(place.where("name"), place["name"]) for place in (*fleet["sites"], *fleet["hosted"])]
    )
    yield from repeated("site endpoint", [(site.where("endpoint"), _host(site)) for site in fleet["sites"]])
    yield from repeated("model name", [(model.where("name"), model["name"]) for model in fleet["models"]])
    yield from repeated("key name", [(key.where("name"), key["name"]) for key in fleet["keys"]])
    yield from repeated("key", [(key.where("sha256"), key["sha256"]) for key in fleet["keys"]])
    for site in fleet["sites"]:
        yield from repeated("pool name", [(pool.where("name"), pool["name"]) for pool in site["pools"]])
    for target in fleet["hosted"]:
        yield from repeated("model", [(model.where("model"), model["model"]) for model in target["models"]])
    placed = [(p.at, f"{p['model']} @ {p['site']}") for p in fleet["placements"] if p["model"] and p["site"]]
    yield from repeated("placement", placed, fix="merge the two: a model has one placement per site")


def dangling(fleet: Part) -> Iterator[Mistake]:
    """What is named and not there."""
    sites = {site["name"]: site for site in fleet["sites"]}
    models = {model["name"] for model in fleet["models"]}
    policies = _policies(fleet["routing"])
    yield from _reference(fleet["weights"], "home", "site", set(sites))
    for placement in fleet["placements"]:
        yield from _reference(placement, "model", "model", models)
        yield from _reference(placement, "site", "site", set(sites))
        if placement["site"] in sites:
            pools = {pool["name"] for pool in sites[placement["site"]]["pools"]}
            yield from _reference(placement, "pool", f"pool at {placement['site']}", pools)
    for target in fleet["hosted"]:
        for model in target["models"]:
            yield from _reference(model, "model", "model", models)
    for key in fleet["keys"]:
        yield from missing(items(key, "models"), "model", models)
    for part in (fleet["routing"], *fleet["models"], *fleet["keys"]):
        yield from _reference(part, "policy", "policy", policies)


def repeated(what: str, named: list[tuple[Where, Any]], fix: str = "change one of the two") -> Iterator[Mistake]:
    """The later ones of equal names."""
    first: dict[Any, Where] = {}
    for at, value in named:
        if value is not None and value in first:
            yield Mistake(at, f"{what} {quoted(value)} is used twice", f"{fix}; the first is {_index(first[value])}")
        first.setdefault(value, at)


def missing(named: list[tuple[Where, Any]], what: str, known: Set[Any]) -> Iterator[Mistake]:
    """The names that are not known."""
    # A name that is itself mistaken (None) may be the one that is meant; to have none at all is a mistake elsewhere.
    if not known or None in known:
        return
    for at, name in named:
        if name is not None and name not in known:
            options = sorted(known)
            fix = did_you_mean(name, options, f"use one of: {', '.join(options)}")
            yield Mistake(at, f"there is no {what} named {quoted(name)}", fix)


def items(part: Part, field: str) -> list[tuple[Where, Any]]:
    """Of a list: each with its place."""
    return [((*part.where(field), index), value) for index, value in enumerate(part[field] or ())]


def _reference(part: Part, field: str, what: str, known: Set[Any]) -> Iterator[Mistake]:
    return missing([(part.where(field), part[field])], what, known)


def _policies(routing: Part) -> set[str | None]:
    if routing["policies"] is None:
        return {None}
    return {*Preset, *(name if policy.values else None for name, policy in routing["policies"].items())}


def _host(site: Part) -> str | None:
    endpoint: str | None = site["endpoint"]
    return endpoint and endpoint.rstrip("/").lower()


def _index(at: Where) -> str:
    """The innermost list item of a place: sites[0].pools[1]."""
    last = max((n for n, step in enumerate(at) if isinstance(step, int)), default=len(at) - 1)
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at[: last + 1]).lstrip(".")
