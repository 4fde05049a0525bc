"""`rayfleet status`: what the ingress knows of every site."""

import json
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from serve_app.cli.endpoint import DEFAULT_DIR, DirOption, Endpoint, EndpointOption, JsonOption
from serve_app.cli.steps import console

Site = dict[str, Any]


def status(endpoint: EndpointOption = None, directory: DirOption = DEFAULT_DIR, as_json: JsonOption = False) -> None:
    """Show every site as the ingress sees it."""
    ingress = Endpoint.find(endpoint, directory)
    sites = read_sites(ingress.url, ingress.key)
    if as_json:
        typer.echo(json.dumps(sites, indent=2))
    else:
        console().print(sites_table(sites))


def read_sites(endpoint: str, key: str) -> list[Site]:
    """`GET /fleet/sites`. Raises FleetUnreachable and FleetRefused."""
    sites: list[Site] = Endpoint(endpoint, key).get("/fleet/sites")
    return sites


def sites_table(sites: list[Site]) -> Table:
    columns = ("site", "health", "model", "release", "replicas", "running", "waiting", "KV in use", "share")
    table = Table(*columns, title="Sites", title_justify="left")
    for site in sites:
        name, health = site["site"], _health(site)
        for placement in site["placements"] or [{}]:
            table.add_row(name, health, *_placement_cells(site, placement))
            name, health = "", Text()
    return table


def _health(site: Site) -> Text:
    health = Text("healthy", "green") if site["healthy"] else Text(site["reason"], "red")
    return health.append("\ndraining", "yellow") if site["draining"] else health


def _placement_cells(site: Site, placement: Site) -> tuple[str | Text, ...]:
    if not placement:
        return ("",) * 7
    kv = placement.get("kv_usage")
    return (
        placement["model"],
        placement["release"],
        f"{placement['replicas']} of {placement['target_replicas']}",
        _number(placement.get("running")),
        _number(placement.get("waiting")),
        "–" if kv is None else f"{kv:.0%}",
        _share(site, placement["model"]),
    )


def _share(site: Site, model: str) -> Text:
    """Of the placement's capacity that requests may have."""
    if site["draining"]:
        return Text("0%", "yellow")
    ejected = site["ejected"].get(model)
    if ejected is not None:
        return Text(f"0%: {ejected}", "red")
    share = site["shares"].get(model)
    return Text("–") if share is None else Text(f"{share:.0%}", "yellow" if share < 1 else "")


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)
