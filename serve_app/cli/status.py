"""`rayfleet status`: what the ingress knows of every site."""

import json
from collections.abc import Iterator
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
        console().print(sites_table(sites), *reasons(sites), sep="\n")


def read_sites(endpoint: str, key: str) -> list[Site]:
    """`GET /fleet/sites`. Raises FleetUnreachable and FleetRefused."""
    sites: list[Site] = Endpoint(endpoint, key).get("/fleet/sites")
    return sites


def sites_table(sites: list[Site]) -> Table:
    columns = ("site", "health", "model", "release", "replicas", "running", "waiting", "held", "KV in use", "share")
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
        return ("",) * 8
    kv = placement.get("kv_usage")
    return (
        placement["model"],
        placement["release"],
        _replicas(placement),
        _number(placement.get("running")),
        _number(placement.get("waiting")),
        _number(placement.get("held")),
        "–" if kv is None else f"{kv:.0%}",
        _share(site, placement["model"]),
    )


def _replicas(placement: Site) -> Text:
    if placement["readiness"] == "asleep":
        return Text("asleep", "dim")
    leaving = placement.get("leaving")
    counts = f"{placement['replicas']} of {placement['target_replicas']}"
    return Text(counts) + (Text(f", {leaving} leaving", "yellow") if leaving else Text())


def _share(site: Site, model: str) -> Text:
    """Of the placement's capacity that requests may have."""
    if site["draining"]:
        return Text("0%", "yellow")
    ejected = site["ejected"].get(model)
    if ejected is not None:
        return Text(f"0%: {ejected}", "red")
    share = site["shares"].get(model)
    return Text("–") if share is None else Text(f"{share:.0%}", "yellow" if share < 1 else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def reasons(sites: list[Site]) -> Iterator[Text]:
    """Why every placement has the replicas that it has: its autoscaler's latest decision, and the planner's bounds."""
    for site in sites:
        for placement in site["placements"]:
            name = Text(f"{placement['model']} at {site['site']}: ", "bold")
            if placement.get("reason"):
                yield name + Text(placement["reason"], "")
            if (bounds := placement.get("bounds")) is not None:
                least, most = (bounds.get(f"{end}_replicas") for end in ("min", "max"))
                between = f"{'–' if least is None else least} to {'–' if most is None else most}"
                yield name + Text(f"the planner allows {between}: {bounds['reason']}", "dim")
        for notice in site.get("notices", ()):
            yield Text(f"node {notice['node'][:12]} at {site['site']}: ", "bold") + Text(notice["message"], "yellow")
