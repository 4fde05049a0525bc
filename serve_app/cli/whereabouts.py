"""`rayfleet weights status`: where every release is, from absent to loaded."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from clusters.check import load
from clusters.launch.local import NoLocalFleet
from clusters.spec import FleetSpec, ModelSpec, SiteSpec
from clusters.state import ReleasePhase
from serve_app.cli.declared import DEFAULT_FLEET, FleetOption
from serve_app.cli.endpoint import (
    DEFAULT_DIR,
    DirOption,
    Endpoint,
    EndpointOption,
    FleetRefused,
    FleetUnreachable,
    JsonOption,
)
from serve_app.cli.status import Site, read_sites
from serve_app.cli.steps import console
from weights.errors import WeightsError
from weights.parallel import for_each
from weights.releases.registry import has_release
from weights.store import open_store

COLOURS = {"stored": "green", "copying": "cyan", "absent": "yellow", "failed": "red"}


@dataclass(frozen=True)
class Finding:
    """One release at one site. `nodes` and `replicas` are None when the ingress was not asked or knows nothing."""

    model: str
    release: str
    site: str
    state: str
    share: float
    """Of its bytes, that the site's store has."""
    nodes: int | None = None
    """That have it on their disks."""
    replicas: int | None = None
    """That have loaded it."""
    message: str = ""


def status(
    fleet: FleetOption = DEFAULT_FLEET,
    endpoint: EndpointOption = None,
    directory: DirOption = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show where every release is. Exits with 1 when a store can't tell.

    Stores are asked directly, with this machine's credentials; the ingress, where there is one, tells of copies under
    way, of nodes and of replicas.
    """
    declared = load(fleet)
    told, silence = _ask_ingress(endpoint, directory)
    asked = [(model, site) for model in declared.models for site in declared.sites]
    findings = for_each(lambda pair: _find(*pair, told.get(pair[1].name)), asked, len(declared.sites))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        console().print(findings_table(declared, findings))
        if silence:
            console().print(f"Only stores were asked: {silence}", style="dim", markup=False)
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(1)


def findings_table(fleet: FleetSpec, findings: list[Finding]) -> Table:
    table = Table("model", "release", *(site.name for site in fleet.sites), title="Weights", title_justify="left")
    cells = {(finding.model, finding.site): _cell(finding) for finding in findings}
    for model in fleet.models:
        table.add_row(model.name, model.release, *(cells[model.name, site.name] for site in fleet.sites))
    return table


def _ask_ingress(endpoint: str | None, directory: Path) -> tuple[dict[str, Site], str]:
    """Sites by name, or why there are none."""
    try:
        ingress = Endpoint.find(endpoint, directory)
        return {site["site"]: site for site in read_sites(ingress.url, ingress.key)}, ""
    except (NoLocalFleet, FleetUnreachable, FleetRefused) as error:
        return {}, str(error)


def _find(model: ModelSpec, site: SiteSpec, told: Site | None) -> Finding:
    name = model.name, model.release, site.name
    copy = _of(told, "releases", model)
    loaded = _of(told, "placements", model)
    nodes = copy.get("nodes") if copy else None
    replicas = loaded.get("replicas") if loaded else None
    try:
        if has_release(open_store(site.store), model.name, model.release):
            return Finding(*name, "stored", 1.0, nodes, replicas)
    except WeightsError as error:
        return Finding(*name, "failed", 0.0, nodes, replicas, str(error))
    if copy and copy["phase"] != ReleasePhase.STORED:
        return Finding(*name, copy["phase"], copy["share"], nodes, replicas, copy["message"])
    return Finding(*name, "absent", 0.0, nodes, replicas)


def _of(told: Site | None, what: str, model: ModelSpec) -> dict[str, Any] | None:
    entries = told.get(what, ()) if told else ()
    return next((one for one in entries if (one["model"], one["release"]) == (model.name, model.release)), None)


def _cell(finding: Finding) -> Text:
    text = Text(f"{finding.share:.0%}" if finding.state == "copying" else finding.state, COLOURS[finding.state])
    if finding.nodes:
        text.append(f"\ncached on {finding.nodes} node{'s' * (finding.nodes > 1)}")
    if finding.replicas:
        text.append(f"\nloaded in {finding.replicas} replica{'s' * (finding.replicas > 1)}")
    if finding.message:
        text.append(f"\n{finding.message}", "dim")
    return text
