"""`rayfleet weights`: push a model's files to the home store, replicate them to every site, see what is where."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Annotated, Literal, cast

import typer
import yaml
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from clusters.check import load
from clusters.spec import FleetSpec, ModelSpec, SiteSpec
from weights.errors import SourceError, WeightsError
from weights.parallel import for_each
from weights.push import Pushed
from weights.push import push as push_release
from weights.registry import has_release
from weights.replicate import Replica
from weights.replicate import replicate as replicate_release
from weights.source import open_source
from weights.store import open_store
from weights.transfer import SILENT
from weights.transfer import Progress as Progressing

app = typer.Typer(no_args_is_help=True)

FleetOption = Annotated[Path, typer.Option("--fleet", envvar="RAYFLEET_FILE", help="The fleet file.")]
DEFAULT_FLEET = Path("fleet.yaml")


@app.command()
def push(
    model: Annotated[str, typer.Argument(help="A model of the fleet; its `source` is read.")],
    fleet: FleetOption = DEFAULT_FLEET,
    pin: Annotated[bool, typer.Option("--pin", help="Write the release into the fleet file.")] = False,
) -> None:
    """Store a model's files as a release at the home site. The same files again move nothing."""
    console = Console()
    declared = load(fleet)
    spec = _model(declared, model)
    with Bars(console) as bars:
        pushed = _push(declared, spec, fleet.parent, os.environ, bars)
    release, delivery = pushed.manifest.release, pushed.delivery
    console.print(
        f"{model} is release [bold]{release}[/] at {declared.weights.home}: {len(delivery.sent)} files "
        f"({decimal(delivery.size)}) sent, {len(delivery.kept)} were there"
    )
    if pin:
        fleet.write_text(pinned(fleet.read_text(), model, release))
        console.print(f"{escape(str(fleet))} names it now")
    elif release != spec.release:
        console.print(f"{escape(str(fleet))} still names {spec.release}: --pin would change that")


@app.command()
def replicate(
    model: Annotated[str | None, typer.Argument(help="Unset means every model.")] = None,
    site: Annotated[list[str] | None, typer.Option("--site", help="Repeatable; unset means every site.")] = None,
    fleet: FleetOption = DEFAULT_FLEET,
) -> None:
    """Copy releases from the home store to the other sites' stores, verified. Exits with 1 when a site failed."""
    console = Console()
    declared = load(fleet)
    models = [_model(declared, model)] if model else declared.models
    sites = _sites(declared, site) if site else _away_from_home(declared)
    failed = False
    with Bars(console) as bars:
        for spec in models:
            for replica in _replicate(declared, spec, sites, os.environ, bars):
                failed = failed or isinstance(replica.outcome, WeightsError)
                bars.print(_told(spec, replica))
    if failed:
        raise typer.Exit(1)


@app.command()
def status(
    fleet: FleetOption = DEFAULT_FLEET,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show which site's store holds the release of which model. Exits with 1 when a store can't tell."""
    declared = load(fleet)
    asked = [(model, site) for model in declared.models for site in declared.sites]
    findings = for_each(lambda pair: _find(*pair), asked, len(declared.sites))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        Console().print(_findings_table(declared, findings))
    if any(finding.state == "error" for finding in findings):
        raise typer.Exit(1)


def push_and_replicate(
    fleet: FleetSpec, environ: Mapping[str, str], report: Callable[[str], None], base: Path = Path()
) -> None:
    """Every model of a fleet to every site's store. Sources are relative to `base`. Raises WeightsError."""
    for model in fleet.models:
        report(f"{model.name} to {fleet.weights.home}")
        release = _push(fleet, model, base, environ, SILENT).manifest.release
        if release != model.release:
            raise SourceError(
                f"{model.source} is release {release}, but the fleet file names {model.release} for {model.name}; "
                f"run: rayfleet weights push {model.name} --pin"
            )
        sites = _away_from_home(fleet)
        report(f"{model.name} to {', '.join(site.name for site in sites)}")
        for replica in _replicate(fleet, model, sites, environ, SILENT):
            if isinstance(replica.outcome, WeightsError):
                raise replica.outcome


def pinned(text: str, model: str, release: str) -> str:
    """The text of a fleet file with another release of one model, and nothing else changed."""
    root = cast(yaml.MappingNode, yaml.compose(text, Loader=yaml.SafeLoader))
    models = next(value for key, value in root.value if key.value == "models")
    entries = [{key.value: value for key, value in entry.value} for entry in models.value]
    value = next(entry["release"] for entry in entries if entry["name"].value == model)
    # Quoted: some releases would be numbers otherwise.
    return f'{text[: value.start_mark.index]}"{release}"{text[value.end_mark.index :]}'


class Bars:
    """One progress bar per site, in bytes verified there."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}
        self._lock = Lock()

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, site: str, size: int) -> None:
        with self._lock:
            total = self._totals[site] = self._totals.get(site, 0) + size
            if site in self._tasks:
                self._progress.update(self._tasks[site], total=total)
            else:
                self._tasks[site] = self._progress.add_task(site, total=total)

    def advance(self, site: str, size: int) -> None:
        self._progress.advance(self._tasks[site], size)

    def print(self, message: str) -> None:
        self._progress.console.print(message, soft_wrap=True)


@dataclass(frozen=True)
class Finding:
    """Whether one site's store holds the release of one model."""

    model: str
    release: str
    site: str
    state: Literal["stored", "absent", "error"]
    error: str | None = None


def _push(fleet: FleetSpec, model: ModelSpec, base: Path, environ: Mapping[str, str], progress: Progressing) -> Pushed:
    home = fleet.site(fleet.weights.home)
    with open_source(model.source, base) as source:
        store = open_store(home.store, environ)
        now = datetime.now(UTC)
        return push_release(model.name, source, store, home.name, now, fleet.weights.parallel_files, progress)


def _replicate(
    fleet: FleetSpec, model: ModelSpec, sites: Iterable[SiteSpec], environ: Mapping[str, str], progress: Progressing
) -> tuple[Replica, ...]:
    home = open_store(fleet.site(fleet.weights.home).store, environ)
    stores = {site.name: site.store for site in sites}
    return replicate_release(model.name, model.release, home, stores, fleet.weights.parallel_files, progress, environ)


def _find(model: ModelSpec, site: SiteSpec) -> Finding:
    try:
        there = has_release(open_store(site.store), model.name, model.release)
    except WeightsError as error:
        return Finding(model.name, model.release, site.name, "error", str(error))
    return Finding(model.name, model.release, site.name, "stored" if there else "absent")


def _told(model: ModelSpec, replica: Replica) -> str:
    what = f"{model.name} {model.release} at {replica.site}"
    if isinstance(replica.outcome, WeightsError):
        return f"[red]{what}: failed: {escape(str(replica.outcome))}[/]"
    sent, kept = replica.outcome.sent, replica.outcome.kept
    return f"{what}: stored, {len(sent)} files ({decimal(replica.outcome.size)}) sent, {len(kept)} were there"


def _findings_table(fleet: FleetSpec, findings: Iterable[Finding]) -> Table:
    table = Table("model", "release", *(site.name for site in fleet.sites))
    states = {(finding.model, finding.site): finding for finding in findings}
    colours = {"stored": "green", "absent": "yellow", "error": "red"}
    for model in fleet.models:
        row = [states[model.name, site.name] for site in fleet.sites]
        cells = [f"[{colours[one.state]}]{escape(one.error or one.state)}[/]" for one in row]
        table.add_row(model.name, model.release, *cells)
    return table


def _model(fleet: FleetSpec, name: str) -> ModelSpec:
    names = [model.name for model in fleet.models]
    if name not in names:
        raise typer.BadParameter(f"no model {name!r} in the fleet; there are {', '.join(names)}")
    return fleet.model(name)


def _sites(fleet: FleetSpec, names: Iterable[str]) -> list[SiteSpec]:
    known = [site.name for site in fleet.sites]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"no site {name!r} in the fleet; there are {', '.join(known)}")
    return [fleet.site(name) for name in names]


def _away_from_home(fleet: FleetSpec) -> list[SiteSpec]:
    return [site for site in fleet.sites if site.name != fleet.weights.home]
