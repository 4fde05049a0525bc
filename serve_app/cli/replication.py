"""`rayfleet weights replicate`: says what copying will take, then copies."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from clusters.check import load
from clusters.spec import FleetSpec, ModelSpec, SiteSpec
from clusters.storage import Verify
from serve_app.cli.bars import Bars
from serve_app.cli.declared import DEFAULT_FLEET, FleetOption, model_of, sites_of
from serve_app.cli.endpoint import JsonOption
from serve_app.cli.steps import console
from weights.copying.deliver import Delivery, Terms
from weights.copying.journal import Journal
from weights.copying.pace import Pace, Progress
from weights.copying.plan import SitePlan, plan
from weights.copying.prices import AS_OF, relayed_usd_per_gb
from weights.copying.reconcile import bytes_per_s
from weights.copying.replicate import Ask, Held, Replica, Survey, survey
from weights.copying.replicate import replicate as replicate_release
from weights.copying.transfer import SAMPLE_EVERY
from weights.errors import OverBudget, WeightsError
from weights.parallel import Lanes
from weights.releases.aliases import resolve
from weights.releases.lease import own_name
from weights.store import open_store

JOURNAL = Path("~/.cache/rayfleet/uploads")
READ_BACK = {Verify.FULL: 1.0, Verify.SAMPLED: 1 / SAMPLE_EVERY, Verify.OFF: 0.0}

ModelArgument = Annotated[str | None, typer.Argument(help="Unset means every model.")]
SiteOption = Annotated[
    list[str] | None, typer.Option("--site", help="Repeatable; unset means the home and every site that serves it.")
]


def replicate(
    model: ModelArgument = None,
    site: SiteOption = None,
    fleet: FleetOption = DEFAULT_FLEET,
    release: Annotated[str | None, typer.Option(help="A release or an alias; unset means the fleet's.")] = None,
    here: Annotated[str | None, typer.Option(help="The site that this machine is at; unset means at none.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Also above weights.budget_usd.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy releases to the stores of sites, verified. Exits with 1 when a site failed.

    Sites keep themselves in step by their own replicators, which is cheaper: this machine is then on no byte's way.
    """
    declared = load(fleet)
    work = Replication(declared, os.environ, sites_of(declared, [here])[0] if here else None)
    sites = [spec.name for spec in sites_of(declared, site or ())]
    jobs, missing = _planned(work, [model_of(declared, model)] if model else declared.models, sites, release)
    if not as_json:
        console().print(plan_table(jobs))
    for error in missing:
        Console(stderr=True, soft_wrap=True).print(str(error), style="red", markup=False)
    if dry_run:
        if as_json:
            typer.echo(json.dumps([told for job in jobs for told in job.as_json()], indent=2))
        raise typer.Exit(1 if missing or any(job.failed for job in jobs) else 0)
    usd = sum(plan.usd for job in jobs for plan in job.plans)
    if usd > declared.weights.budget_usd and not yes:
        raise OverBudget(
            f"that costs {usd:.2f} USD of egress, more than weights.budget_usd ({declared.weights.budget_usd:g}); "
            "--yes allows it"
        )
    replicas = [(job, replica) for job in jobs for replica in _carried_out(work, job, as_json)]
    if as_json:
        typer.echo(json.dumps([_result(job, replica) for job, replica in replicas], indent=2))
    if missing or any(isinstance(replica.outcome, WeightsError) for _, replica in replicas):
        raise typer.Exit(1)


@dataclass(frozen=True)
class Job:
    """One release, and what copying it to some sites takes."""

    model: str
    release: str
    survey: Survey
    plans: tuple[SitePlan, ...]

    @property
    def failed(self) -> Mapping[str, str]:
        """Sites that can't be served, and why."""
        told = {site: str(error) for site, error in self.survey.failed.items()}
        return told | {plan.site: plan.problem for plan in self.plans if plan.problem}

    def as_json(self) -> Iterator[dict[str, Any]]:
        for step in self.plans:
            yield {
                "model": self.model,
                "release": self.release,
                "site": step.site,
                "from": step.source,
                "send_bytes": step.sent,
                "clone_bytes": sum(file.size for file in step.needs.clone),
                "verify_bytes": step.needs.size,
                "usd": round(step.usd, 4),
                "seconds": step.seconds,
                "free_bytes": self.survey.inventories[step.site].free,
                "problem": step.problem,
            }


class Replication:
    """What the copies of one fleet have in common."""

    def __init__(self, fleet: FleetSpec, environ: Mapping[str, str], here: SiteSpec | None) -> None:
        self._fleet = fleet
        self._here = here
        self._sites = {site.name: site for site in fleet.sites}
        self.opened = cache(lambda site: open_store(self._sites[site].store, environ))

    def planned(self, model: ModelSpec, sites: Sequence[str] = (), release: str | None = None) -> Job:
        """No sites: the home and every one that serves the model. Raises ReleaseMissing when no store has it."""
        home = self._fleet.weights.home
        wanted = resolve(self.opened(home), model.name, release) if release else model.release
        order = [home, *(name for name in self._sites if name != home)]
        seen = survey(model.name, wanted, order, self.opened)
        chosen = sites or [name for name in order if name == home or self._serves(name, model.name)]
        inventories = [seen.inventories[name] for name in chosen if name in seen.inventories]
        plans = plan(seen.manifest, inventories, seen.holders, self.price, bytes_per_s(self._fleet.weights))
        failed = {name: error for name, error in seen.failed.items() if name in chosen}
        return Job(model.name, wanted, Survey(seen.manifest, seen.inventories, failed), plans)

    def carry_out(self, job: Job, progress: Progress) -> tuple[Replica, ...]:
        """Every plan that can be, and what went wrong with the others."""

        ask = Ask(own_name(), bytes_per_s(self._fleet.weights))
        sound = [plan for plan in job.plans if not plan.problem]
        done = replicate_release(
            job.survey, sound, self.opened, lambda site: self.terms(site, progress), self.price, ask
        )
        return (*done, *(Replica(site, WeightsError(reason)) for site, reason in job.failed.items()))

    @contextmanager
    def terms(self, site: str, progress: Progress) -> Iterator[Terms]:
        """How bytes move to a site's store."""
        weights = self._fleet.weights
        with Lanes(weights.parallel_parts) as lanes:
            pace = Pace(self._sites[site].store.url)
            yield Terms(lanes, pace, Journal(JOURNAL.expanduser()), weights.verify, progress)

    def price(self, source: str, target: str) -> float:
        """USD per GB, by way of this machine."""
        share = READ_BACK[self._fleet.weights.verify]
        return relayed_usd_per_gb(self._sites[source], self._sites[target], self._here, share)

    def _serves(self, site: str, model: str) -> bool:
        return any(placement.model == model for placement in self._fleet.placements_at(site))


def plan_table(jobs: Sequence[Job]) -> Table:
    columns = (
        "model",
        "release",
        "site",
        "from",
        "send",
        "copy inside",
        "read",
        f"egress ({AS_OF})",
        "at least",
        "free",
    )
    table = Table(*columns, title="Plan", title_justify="left")
    for job in jobs:
        for step in job.plans:
            inside = sum(file.size for file in step.needs.clone)
            amounts = [_bytes(amount) for amount in (step.sent, inside, step.needs.size)]
            time = "–" if step.seconds is None else f"{step.seconds:,.0f} s"
            source = step.source or ("–" if not step.sent else "")
            row = (job.model, job.release, step.site, source, *amounts, f"{step.usd:,.2f} USD", time)
            table.add_row(*row, style="red" if step.problem else None)
        for site, reason in job.failed.items():
            table.add_row(job.model, job.release, site, f"[red]{escape(reason)}[/]")
    return table


def outcome_line(job: Job, replica: Replica) -> str:
    """What became of one site, for people."""
    what = f"{job.model} {job.release} at {replica.site}"
    match replica.outcome:
        case Delivery() as done:
            kept = len(done.kept) + len(done.cloned)
            return f"{what}: stored, {len(done.sent)} files ({decimal(done.size)}) sent, {kept} were there"
        case Held(owner):
            return f"[yellow]{what}: {escape(owner)} is copying it[/]"
        case error:
            return f"[red]{what}: failed: {escape(str(error))}[/]"


def _planned(
    work: Replication, models: Sequence[ModelSpec], sites: Sequence[str], release: str | None
) -> tuple[list[Job], list[WeightsError]]:
    """A job for each model, or why there can be none."""
    jobs, missing = [], []
    for model in models:
        try:
            jobs.append(work.planned(model, sites, release))
        except WeightsError as error:
            missing.append(error)
    return jobs, missing


def _carried_out(work: Replication, job: Job, quiet: bool) -> tuple[Replica, ...]:
    with Bars(Console(stderr=quiet)) as bars:
        replicas = work.carry_out(job, bars)
        if not quiet:
            for replica in replicas:
                bars.print(outcome_line(job, replica))
    return replicas


def _result(job: Job, replica: Replica) -> dict[str, Any]:
    told: dict[str, Any] = {"model": job.model, "release": job.release, "site": replica.site}
    match replica.outcome:
        case Delivery() as done:
            return told | {"state": "stored", "sent_bytes": done.size, "sent_files": len(done.sent)}
        case Held(owner):
            return told | {"state": "copying", "by": owner}
        case error:
            return told | {"state": "failed", "error": str(error)}


def _bytes(amount: int) -> str:
    return decimal(amount) if amount else "–"
