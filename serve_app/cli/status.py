"""`rayfleet status`: what the ingress knows of every site."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from clusters.launch import local as launch
from serve_app.cli.steps import console

Site = dict[str, Any]
MAX_BYTES = 8 * 2**20


class FleetUnreachable(Exception):
    """The ingress did not answer, or refused the key."""


def status(
    endpoint: Annotated[
        str | None, typer.Option(help="Base URL of the ingress; unset means the local fleet's.")
    ] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Of the local fleet.")] = Path("clusters/local"),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show every site as the ingress sees it. With --endpoint the key is read from RAYFLEET_API_KEY."""
    if endpoint:
        key = os.environ.get("RAYFLEET_API_KEY", "")
    else:
        local = launch.load(directory)
        endpoint, key = local.endpoint, local.api_key
    sites = read_sites(endpoint, key)
    if as_json:
        typer.echo(json.dumps(sites, indent=2))
    else:
        console().print(sites_table(sites))


def read_sites(endpoint: str, key: str) -> list[Site]:
    """`GET /fleet/sites`. Raises FleetUnreachable."""
    request = urllib.request.Request(f"{endpoint}/fleet/sites", headers={"Authorization": f"Bearer {key}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            sites: list[Site] = json.loads(answer.read(MAX_BYTES))
            return sites
    except (urllib.error.URLError, ConnectionError, TimeoutError, ValueError) as error:
        raise FleetUnreachable(f"{endpoint} did not tell its sites: {error}") from error


def sites_table(sites: list[Site]) -> Table:
    table = Table(
        "site",
        "health",
        "model",
        "release",
        "replicas",
        "running",
        "waiting",
        "KV in use",
        title="Sites",
        title_justify="left",
    )
    for site in sites:
        health = "[green]healthy" if site["healthy"] else f"[red]{site['reason']}"
        for placement in site["placements"] or [{}]:
            table.add_row(site["site"], health, *_placement_cells(placement))
            site, health = {"site": ""}, ""
    return table


def _placement_cells(placement: Site) -> tuple[str, ...]:
    if not placement:
        return ("",) * 6
    kv = placement.get("kv_usage")
    return (
        placement["model"],
        placement["release"],
        f"{placement['replicas']} of {placement['target_replicas']}",
        _number(placement.get("running")),
        _number(placement.get("waiting")),
        "–" if kv is None else f"{kv:.0%}",
    )


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)
