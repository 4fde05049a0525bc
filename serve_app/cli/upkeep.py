"""`rayfleet weights verify`, `rm` and `gc`: keeping stores right, and no fuller than they need be."""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from clusters.check import load
from clusters.spec import FleetSpec
from clusters.storage import Verify
from serve_app.cli.bars import Bars
from serve_app.cli.declared import DEFAULT_FLEET, FleetOption, SiteOption, known_name, pins, store_of
from serve_app.cli.endpoint import JsonOption
from serve_app.cli.releases import ModelArgument
from serve_app.cli.steps import console
from weights.copying.pace import Pace
from weights.errors import Corrupt, NotFound
from weights.parallel import Lanes
from weights.releases.aliases import aliases
from weights.releases.garbage import KEEP, Garbage, collect, everything_of, remove, take_stock
from weights.releases.lease import holder
from weights.releases.registry import RELEASE_ID, load_manifest, models, releases, replicate_command, unpublish
from weights.releases.repair import quarantine, verify_release
from weights.store import Store


def verify(
    model: Annotated[str | None, typer.Argument(help="Unset means every model.", callback=known_name)] = None,
    site: SiteOption = None,
    how: Annotated[Verify, typer.Option("--how", help="Of off, only names and sizes are compared.")] = Verify.FULL,
    repair: Annotated[bool, typer.Option("--repair", help="Put aside what is corrupt, to be copied again.")] = False,
    fleet: FleetOption = DEFAULT_FLEET,
    as_json: JsonOption = False,
) -> None:
    """Read every release at a site's store. Exits with 1 when something is corrupt."""
    declared = load(fleet)
    place = site or declared.weights.home
    store = store_of(declared, place)
    with Bars(Console(stderr=True)) as bars, Lanes(declared.weights.parallel_parts) as lanes:
        check = _Check(store, place, how, repair, lanes, bars)
        names = [model] if model else models(store)
        verdicts = [check.verdict(name, release) for name in names for release in releases(store, name)]
    if as_json:
        typer.echo(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
    else:
        for verdict in verdicts:
            _tell(verdict, repair)
    if any(verdict.corrupt for verdict in verdicts):
        raise typer.Exit(1)


def rm(
    model: ModelArgument,
    release: Annotated[str, typer.Argument(help="Its id.")],
    site: SiteOption = None,
    force: Annotated[bool, typer.Option("--force", help="Though it is pinned, aliased or being copied.")] = False,
    fleet: FleetOption = DEFAULT_FLEET,
) -> None:
    """Remove a release, or what there is of it, from a site's store."""
    if not RELEASE_ID.fullmatch(release):
        raise typer.BadParameter(f"{release!r} is not the id of a release: 12 hex digits, as `list` shows them")
    declared = load(fleet)
    store = store_of(declared, site)
    if not force and (use := _use(declared, store, model, release)):
        raise typer.BadParameter(f"{model} {release} is {use}; --force removes it all the same")
    found = everything_of(store, model, release, "asked for")
    if not found:
        raise NotFound(store.url, f"remove {model} {release}", "nothing of it is there")
    remove(store, found)
    console().print(f"{model} {release} is gone from {store.url}: {_amount(found)}", highlight=False, soft_wrap=True)


def gc(
    site: SiteOption = None,
    keep: Annotated[int, typer.Option(min=1, help="Releases of each model that stay because they are new.")] = KEEP,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    fleet: FleetOption = DEFAULT_FLEET,
    as_json: JsonOption = False,
) -> None:
    """Remove what nobody needs from a site's store: old releases, and what broken runs left."""
    declared = load(fleet)
    store = store_of(declared, site)
    holdings = take_stock(store)
    # Asked after the stock was taken: a name that moves to an old release meanwhile is seen.
    named = {(model, alias.release) for model in holdings.models for alias in aliases(store_of(declared), model)}
    found = collect(holdings, pins(declared) | named, keep, time.time())
    if as_json:
        typer.echo(json.dumps([{"key": one.item.key, "bytes": one.size, "why": one.why} for one in found], indent=2))
    elif found:
        console().print(_garbage_table(found))
    else:
        console().print(f"{store.url} holds nothing that nobody needs", highlight=False, soft_wrap=True)
    if dry_run or not found:
        return
    if not yes:
        typer.confirm(f"Remove {_amount(found)} from {store.url}?", abort=True, err=True)
    remove(store, found)


@dataclass(frozen=True)
class Verdict:
    """What was found of a release at a site; `corrupt` says why, for each wrong file."""

    model: str
    release: str
    site: str
    corrupt: tuple[str, ...]


@dataclass(frozen=True)
class _Check:
    """How releases of one store are verified."""

    store: Store
    site: str
    how: Verify
    repair: bool
    lanes: Lanes
    bars: Bars

    def verdict(self, model: str, release: str) -> Verdict:
        return Verdict(model, release, self.site, tuple(map(str, self._wrong(model, release))))

    def _wrong(self, model: str, release: str) -> tuple[Corrupt, ...]:
        try:
            manifest = load_manifest(self.store, model, release, replicate_command(model, self.site))
        except Corrupt as error:
            if self.repair:
                unpublish(self.store, model, release)
            return (error,)
        self.bars.begin(self.site, manifest.size)
        wrong = verify_release(
            self.store, manifest, self.how, self.lanes, Pace(self.site), lambda size: self.bars.advance(self.site, size)
        )
        if wrong and self.repair:
            quarantine(self.store, manifest, wrong, time.time())
        return wrong


def _tell(verdict: Verdict, repair: bool) -> None:
    name = f"{verdict.model} {verdict.release} at {verdict.site}"
    if not verdict.corrupt:
        console().print(f"{name}: right", highlight=False, soft_wrap=True)
        return
    lines = [f"{name}: wrong", *verdict.corrupt]
    run = replicate_command(verdict.model, verdict.site)
    lines.append(f"put aside; to have it copied again, run: {run}" if repair else "--repair would put that aside")
    console().print("\n    ".join(lines), style="red", markup=False, highlight=False, soft_wrap=True)


def _use(fleet: FleetSpec, store: Store, model: str, release: str) -> str:
    """What speaks against removing a release; empty if nothing does."""
    names = [alias.name for alias in aliases(store_of(fleet), model) if alias.release == release]
    if (model, release) in pins(fleet):
        return "pinned by the fleet file"
    if names:
        return f"what {', '.join(names)} points to"
    copying = holder(store, model, release)
    return f"being copied there by {copying}" if copying else ""


def _amount(found: Iterable[Garbage]) -> str:
    sizes = [one.size for one in found]
    return f"{len(sizes)} objects, {decimal(sum(sizes))}"


def _garbage_table(found: Iterable[Garbage]) -> Table:
    reasons: dict[str, list[Garbage]] = {}
    for one in found:
        reasons.setdefault(one.why, []).append(one)
    table = Table("what", "objects", "size")
    for why, items in reasons.items():
        table.add_row(escape(why), str(len(items)), decimal(sum(one.size for one in items)))
    return table
