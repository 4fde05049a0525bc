"""Jurisdictions that requests are held to: they exist, and leave a model somewhere to run."""

from collections.abc import Iterator
from typing import Any

from clusters.fleet_file.document import Mistake
from clusters.fleet_file.draft import Part
from clusters.fleet_file.names import items, missing


def unreachable(fleet: Part) -> Iterator[Mistake]:
    """Jurisdictions where nothing is, and models that none of theirs has."""
    known = {place["jurisdiction"] for place in (*fleet["sites"], *fleet["hosted"])}
    for part in (*fleet["models"], *fleet["keys"]):
        yield from missing(items(part, "jurisdictions"), "site or hosted target in a jurisdiction", known)
    for model in fleet["models"]:
        if known.issuperset(model["jurisdictions"] or ()):
            yield from _excluded(model, _offered(fleet, model["name"]))


def _offered(fleet: Part, model: str | None) -> set[Any]:
    """Where a model is; None among them when that is not known for all."""
    at_sites = {site["name"]: site["jurisdiction"] for site in fleet["sites"] if site["name"] is not None}
    placed = {at_sites.get(p["site"]) for p in fleet["placements"] if p["model"] in (model, None)}
    hosted = {
        target["jurisdiction"]
        for target in fleet["hosted"]
        if any(offer["model"] in (model, None) for offer in target["models"])
    }
    return placed | hosted


def _excluded(model: Part, offered: set[Any]) -> Iterator[Mistake]:
    allowed = model["jurisdictions"]
    if not allowed or not offered or None in offered or offered.intersection(allowed):
        return
    message = f"every placement and hosted target of the model is elsewhere ({', '.join(sorted(offered))})"
    yield model.mistake("jurisdictions", message, "allow one of those, or place the model at a site in one of these")
