"""`rayfleet weights`: push a model's files to the home store; the other commands on releases are gathered here."""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from clusters.check import load
from clusters.spec import FleetSpec, ModelSpec
from serve_app.cli import releases, replication, upkeep, whereabouts
from serve_app.cli.bars import Bars
from serve_app.cli.declared import DEFAULT_FLEET, FleetOption, model_of, pinned
from serve_app.cli.replication import Replication
from weights.copying.pace import SILENT, Progress
from weights.errors import SourceError, WeightsError
from weights.push import Pushed
from weights.push import push as push_release
from weights.sources.source import open_source

app = typer.Typer(no_args_is_help=True)


@app.command()
def push(
    model: Annotated[str, typer.Argument(help="A model of the fleet.")],
    fleet: FleetOption = DEFAULT_FLEET,
    source: Annotated[
        str | None,
        typer.Option("--from", help="hf://org/repo@rev, s3://…, gs://… or a directory; unset: the model's `source`."),
    ] = None,
    pin: Annotated[bool, typer.Option("--pin", help="Write the release into the fleet file.")] = False,
) -> None:
    """Store a model's files as a release at the home site. The same files again move nothing."""
    console = Console()
    declared = load(fleet)
    spec = model_of(declared, model)
    if source is not None:
        spec = spec.model_copy(update={"source": source if "://" in source else str(Path(source).resolve())})
    with Bars(console) as bars:
        pushed = _push(declared, spec, fleet.parent, os.environ, bars)
    release, delivery = pushed.manifest.release, pushed.delivery
    console.print(
        f"{model} is release [bold]{release}[/] at {declared.weights.home}: {len(delivery.sent)} files "
        f"({decimal(delivery.size)}) sent, {len(delivery.kept) + len(delivery.cloned)} were there"
    )
    if pin:
        fleet.write_text(pinned(fleet.read_text(), model, release))
        console.print(f"{escape(str(fleet))} names it now")
    elif release != declared.model(model).release:
        console.print(f"{escape(str(fleet))} still names {declared.model(model).release}: --pin would change that")


app.command()(replication.replicate)
app.command()(whereabouts.status)
app.command("list")(releases.list_releases)
for command in (releases.show, releases.diff, releases.alias, releases.pin, upkeep.verify, upkeep.rm, upkeep.gc):
    app.command()(command)


def push_and_replicate(
    fleet: FleetSpec, environ: Mapping[str, str], report: Callable[[str], None], base: Path = Path()
) -> None:
    """Every model of a fleet to every site's store. Sources are relative to `base`. Raises WeightsError."""
    work = Replication(fleet, environ, None)
    for model in fleet.models:
        report(f"{model.name} to {fleet.weights.home}")
        release = _push(fleet, model, base, environ, SILENT).manifest.release
        if release != model.release:
            raise SourceError(
                f"{model.source} is release {release}, but the fleet file names {model.release} for {model.name}; "
                f"run: rayfleet weights push {model.name} --pin"
            )
        job = work.planned(model)
        report(f"{model.name} to {', '.join(plan.site for plan in job.plans if plan.site != fleet.weights.home)}")
        for replica in work.carry_out(job, SILENT):
            if isinstance(replica.outcome, WeightsError):
                raise replica.outcome


def _push(fleet: FleetSpec, model: ModelSpec, base: Path, environ: Mapping[str, str], progress: Progress) -> Pushed:
    work = Replication(fleet, environ, None)
    home = fleet.weights.home
    source = open_source(model.source, base)
    with work.terms(home, progress) as terms:
        return push_release(model.name, source, work.opened(home), home, datetime.now(UTC), terms)
