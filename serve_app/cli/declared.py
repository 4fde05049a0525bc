"""What commands on weights ask of the fleet file: which sites and models it names, and which releases it pins."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
import yaml

from clusters.fields import Name
from clusters.spec import FleetSpec, ModelSpec, SiteSpec
from weights.releases.registry import Release
from weights.store import Store, open_store

DEFAULT_FLEET = Path("fleet.yaml")
FleetOption = Annotated[Path, typer.Option("--fleet", envvar="RAYFLEET_FILE", help="The fleet file.")]
SiteOption = Annotated[str | None, typer.Option("--site", help="Whose store; unset means the home's.")]


def known_name(name: str | None) -> str | None:
    """A callback for models that a store may know and the fleet file not: the name becomes part of a key."""
    if name is not None and not re.fullmatch(get_args(Name)[1].pattern, name):
        raise typer.BadParameter(f"{name!r} can't be the name of a model")
    return name


def model_of(fleet: FleetSpec, name: str) -> ModelSpec:
    names = [model.name for model in fleet.models]
    if name not in names:
        raise typer.BadParameter(f"no model {name!r} in the fleet; there are {', '.join(names)}")
    return fleet.model(name)


def sites_of(fleet: FleetSpec, names: Iterable[str]) -> list[SiteSpec]:
    known = [site.name for site in fleet.sites]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"no site {name!r} in the fleet; there are {', '.join(known)}")
    return [fleet.site(name) for name in names]


def store_of(fleet: FleetSpec, site: str | None = None) -> Store:
    """The store of a site, or the home's."""
    (spec,) = sites_of(fleet, [site or fleet.weights.home])
    return open_store(spec.store)


def pins(fleet: FleetSpec) -> frozenset[Release]:
    """What the fleet file says should run."""
    return frozenset((model.name, model.release) for model in fleet.models)


def pinned(text: str, model: str, release: str) -> str:
    """The text of a fleet file with another release of one model, and nothing else changed."""
    root = cast(yaml.MappingNode, yaml.compose(text, Loader=yaml.SafeLoader))
    models = next(value for key, value in root.value if key.value == "models")
    entries = [{key.value: value for key, value in entry.value} for entry in models.value]
    value = next(entry["release"] for entry in entries if entry["name"].value == model)
    # Quoted: some releases would be numbers otherwise.
    return f'{text[: value.start_mark.index]}"{release}"{text[value.end_mark.index :]}'
