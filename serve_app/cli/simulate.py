"""`rayfleet simulate`: a trace through fleet.yaml, with the real routing and scaling code and modelled engines."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from autoscaling.simulate.availability import Availability, Outage, read_availability
from autoscaling.simulate.cards import ModelSize, assumed_model
from autoscaling.simulate.engine_model import EngineModel, load_model
from autoscaling.simulate.outcome import Outcome, Summary, site_summaries, summary
from autoscaling.simulate.scenario import Scenario, Startup
from autoscaling.simulate.traces import Format, Request, read_trace
from autoscaling.simulate.workload import for_model, pinned, scaled, within
from clusters.scaling import ScalingPolicy
from clusters.spec import FleetSpec, PlacementSpec
from serve_app.cli.simulate_page import measures, page
from serve_app.cli.simulate_variants import FIXED, UNPLANNED, Variant, variants
from serve_app.cli.steps import console
from serve_app.simulation import simulate as run


def simulate(
    trace: Annotated[Path, typer.Argument(help="Azure's CSV, Mooncake's JSONL, or a file of the request log.")],
    fleet: Annotated[Path, typer.Option(help="The fleet file.")] = Path("fleet.yaml"),
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Also run: another fleet file, {UNPLANNED} (no planner), {FIXED} (most replicas), "
            f"{', '.join(ScalingPolicy)}."
        ),
    ] = None,
    form: Annotated[Format | None, typer.Option("--format", help="Of the trace; unset: by its first line.")] = None,
    model: Annotated[str | None, typer.Option(help="For requests that name none; unset: the fleet's first.")] = None,
    rate: Annotated[float, typer.Option(min=0.001, max=1000, help="Times the trace's requests per second.")] = 1.0,
    seconds: Annotated[float, typer.Option(min=1, help="Only that much of the trace.")] = math.inf,
    share: Annotated[
        list[str] | None, typer.Option(help="SITE=0.3: so many of the requests may be served there only.")
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="FILE or SITE/MODEL=FILE of `rayfleet calibrate`; unset: assumed from data sheets."),
    ] = None,
    billions: Annotated[float, typer.Option(min=0.01, help="Parameters of the model, for assumed engines.")] = 8.03,
    start: Annotated[float, typer.Option(min=0, help="Seconds until a replica answers on a node that is there.")] = 60,
    node_start: Annotated[float, typer.Option(min=0, help="Seconds more where a node must come first.")] = 60,
    round_trip: Annotated[float, typer.Option(min=0, help="Seconds between ingress and sites.")] = 0.02,
    spot: Annotated[
        list[str] | None, typer.Option(help="SITE/POOL=FILE: availability of a spot pool, SkyPilot's format.")
    ] = None,
    spot_from: Annotated[float, typer.Option(min=0, help="Hours of these files to skip.")] = 0,
    outage: Annotated[list[str] | None, typer.Option(help="SITE=600-900: no answer between these seconds.")] = None,
    ttft: Annotated[float, typer.Option(min=0.001, help="Target of the time to the first token, seconds.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    html: Annotated[Path | None, typer.Option(help="File for a page with plots.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Replay a trace over the fleet and say what it costs and how fast it answers. Nothing real is touched."""
    requests = scaled(within(read_trace(trace, form), seconds), rate, seed)
    requests = pinned(requests, {site: _number(value, "--share") for site, value in _pairs(share, "--share")}, seed)
    engines = dict(_pairs([each if "=" in each else f"={each}" for each in engine or []], "--engine"))
    size = ModelSize(billions * 1e9, ModelSize.kv_bytes_per_token * billions * 1e9 / ModelSize.parameters)
    pools = dict(_spot(spot, spot_from * 3600))
    scenarios = []
    for variant in variants(fleet, compare or []):
        asking, asked = _asking(requests, model, variant.fleet)
        _refuse_unknown(asked, share, engines, pools, outage)
        places = [(each.site, each.model) for each in asked.placements]
        made = Scenario(
            fleet=asked,
            requests=asking,
            engines={(each.site, each.model): _engine(asked, each, engines, size) for each in asked.placements},
            ttft_target_s=ttft,
            startup=dict.fromkeys(places, Startup(start, node_start)),
            initial=variant.initial(),
            round_trip_s={site.name: round_trip for site in asked.sites},
            spot=pools,
            outages=_outages(outage),
            seed=seed,
        )
        scenarios.append((replace(variant, fleet=asked), made))
    outcomes = _run(scenarios)
    if html is not None:
        html.write_text(
            page(f"{trace.name} over {fleet.name}", {variant.label: outcome for variant, outcome in outcomes})
        )
    if as_json:
        typer.echo(json.dumps({variant.name: _report(variant, outcome) for variant, outcome in outcomes}, indent=2))
    else:
        console().print(_table(outcomes))


def _run(scenarios: Sequence[tuple[Variant, Scenario]]) -> list[tuple[Variant, Outcome]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    outcomes = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for variant, scenario in scenarios:
            task = progress.add_task(variant.label, total=1.0)

            def told(share: float, task: Any = task) -> None:
                progress.update(task, completed=share)

            outcomes.append((variant, run(scenario, variant.controller(), told)))
            told(1.0)
    return outcomes


def _asking(requests: Sequence[Request], model: str | None, fleet: FleetSpec) -> tuple[tuple[Request, ...], FleetSpec]:
    """Each request for a model of the fleet, and the fleet with the placements of these. Raises typer.BadParameter."""
    asking = for_model(requests, model or fleet.models[0].name)
    wanted = {request.model for request in asking}
    placements = tuple(placement for placement in fleet.placements if placement.model in wanted)
    if unknown := wanted - {placement.model for placement in placements}:
        raise typer.BadParameter(f"no placement of {', '.join(sorted(unknown))} in fleet {fleet.name}")
    return asking, fleet.model_copy(update={"placements": placements})


def _refuse_unknown(
    fleet: FleetSpec,
    shares: Sequence[str] | None,
    engines: Mapping[str, str],
    spot: Mapping[tuple[str, str], Availability],
    outages: Sequence[str] | None,
) -> None:
    """What names nothing of the fleet would change nothing, silently. Raises typer.BadParameter."""
    sites = {site.name for site in fleet.sites}
    pools = {f"{site.name}/{pool.name}" for site in fleet.sites for pool in site.pools}
    places = {f"{placement.site}/{placement.model}" for placement in fleet.placements}
    given = (
        ("--share", [name for name, _ in _pairs(shares, "--share")], sites),
        ("--outage", [name for name, _ in _pairs(outages, "--outage")], sites),
        ("--spot", ["/".join(where) for where in spot], pools),
        ("--engine", [name for name in engines if name], places),
    )
    for option, names, known in given:
        if unknown := [name for name in names if name not in known]:
            raise typer.BadParameter(
                f"fleet {fleet.name} has no {unknown[0]}, only {', '.join(sorted(known))}", param_hint=option
            )


def _engine(fleet: FleetSpec, placement: PlacementSpec, files: Mapping[str, str], size: ModelSize) -> EngineModel:
    file = files.get(f"{placement.site}/{placement.model}", files.get(""))
    if file is not None:
        return load_model(Path(file))
    accelerator = fleet.site(placement.site).pool(placement.pool).accelerator
    return assumed_model(accelerator or "CPU", placement.gpus, size)


def _outages(texts: Sequence[str] | None) -> tuple[Outage, ...]:
    outages = []
    for site, interval in _pairs(texts, "--outage"):
        began, _, ended = interval.partition("-")
        outages.append(Outage(site, _number(began, "--outage"), _number(ended, "--outage")))
    return tuple(outages)


def _pairs(texts: Sequence[str] | None, option: str) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts or ()]
    if bad := [name for name, equals, _ in pairs if not equals]:
        raise typer.BadParameter(f"{bad[0]!r} has no =", param_hint=option)
    return [(name, value) for name, _, value in pairs]


def _spot(texts: Sequence[str] | None, began: float) -> Iterator[tuple[tuple[str, str], Availability]]:
    """By site and pool. Raises BadTrace and typer.BadParameter."""
    for where, file in _pairs(texts, "--spot"):
        site, slash, pool = where.partition("/")
        if not slash:
            raise typer.BadParameter(f"{where!r} should be SITE/POOL", param_hint="--spot")
        yield (site, pool), read_availability(Path(file)).from_second(began)


def _number(text: str, option: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise typer.BadParameter(f"{text!r} should be a number of at least 0", param_hint=option)
    return number


def _report(variant: Variant, outcome: Outcome) -> dict[str, Any]:
    """NaN is no JSON."""
    summaries = [asdict(each) for each in (summary(outcome), *site_summaries(outcome))]
    clean = [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in each.items()}
        for each in summaries
    ]
    changes = [asdict(change) for change in outcome.changes]
    return {"planned": variant.planned, "all": clean[0], "sites": clean[1:], "changes": changes}


def _table(outcomes: Sequence[tuple[Variant, Outcome]]) -> Table:
    columns = ("requests", "in time", "TTFT p50", "p99", "TPOT p50", "GPU-h", "USD", "egress", "changes/h", "queue")
    planned = ", ".join(variant.name for variant, _ in outcomes if variant.planned)
    table = Table(title=f"Simulated, with the planner: {planned or 'none'}", title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for variant, outcome in outcomes:
        table.add_section()
        table.add_row(*_cells(replace(summary(outcome), name=variant.name)), style="bold")
        for each in site_summaries(outcome):
            table.add_row(*_cells(replace(each, name=f"  {each.name}")))
    return table


def _cells(of: Summary) -> tuple[str, ...]:
    return (
        of.name,
        f"{of.requests:,}",
        *measures(of),
        f"{of.gpu_hours:.2f}",
        f"{of.usd:.2f}",
        f"{of.usd_egress:.2f}",
        f"{of.changes_per_hour:.1f}",
        str(of.worst_queue),
    )
