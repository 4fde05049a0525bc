"""`rayfleet weights list`, `show`, `diff`, `alias` and `pin`: which releases there are, and what they are called."""

import json
import socket
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from clusters.check import load
from clusters.spec import FleetSpec
from serve_app.cli.declared import (
    DEFAULT_FLEET,
    FleetOption,
    SiteOption,
    known_name,
    model_of,
    pinned,
    pins,
    store_of,
)
from serve_app.cli.endpoint import JsonOption
from serve_app.cli.steps import console
from weights.errors import WeightsError
from weights.manifest import File, Manifest
from weights.releases.aliases import Alias, Position, aliases, drop, find, is_alias_name, move, resolve
from weights.releases.difference import Difference, difference
from weights.releases.registry import history, load_manifest, models
from weights.store import Store

ModelArgument = Annotated[str, typer.Argument(callback=known_name)]
ReleaseArgument = Annotated[str, typer.Argument(help="Its id, or an alias.")]


def list_releases(
    model: Annotated[str | None, typer.Argument(help="Unset means every model.", callback=known_name)] = None,
    site: SiteOption = None,
    fleet: FleetOption = DEFAULT_FLEET,
    as_json: JsonOption = False,
) -> None:
    """Show the releases that a site's store holds, the newest first."""
    declared = load(fleet)
    store = store_of(declared, site)
    names = [model] if model else models(store)
    listed = [one for name in names for one in _listed(declared, name, history(store, name))]
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in listed], indent=2))
    else:
        console().print(_releases_table(listed))


def show(
    model: ModelArgument,
    release: ReleaseArgument,
    site: SiteOption = None,
    fleet: FleetOption = DEFAULT_FLEET,
    as_json: JsonOption = False,
) -> None:
    """Show what a release consists of and where it came from."""
    declared = load(fleet)
    manifest = _manifest(store_of(declared, site), model, _resolved(declared, model, release))
    (listed,) = _listed(declared, model, [manifest])
    if as_json:
        typer.echo(json.dumps(asdict(listed) | {"content": [_plain(file) for file in manifest.files]}, indent=2))
        return
    out = console()
    for name, value in asdict(listed).items():
        if value not in (None, ()):
            out.print(f"[bold]{name:>9}[/]  {escape(_written(value))}", highlight=False, soft_wrap=True)
    table = Table("file", "size", "digest")
    for file in sorted(manifest.files, key=lambda file: file.path):
        table.add_row(*_cells(file))
    out.print(table)


def diff(
    model: ModelArgument,
    release: ReleaseArgument,
    other: Annotated[str | None, typer.Argument(help="Its id, or an alias; unset means the release's parent.")] = None,
    site: SiteOption = None,
    fleet: FleetOption = DEFAULT_FLEET,
    as_json: JsonOption = False,
) -> None:
    """Show which files and how many bytes of a release another one lacks."""
    declared = load(fleet)
    store = store_of(declared, site)
    mine = _manifest(store, model, _resolved(declared, model, release))
    before = _resolved(declared, model, other) if other else mine.parent
    if before is None:
        raise typer.BadParameter(f"{mine.release} has no parent: name the release to compare it with")
    found = difference(mine, _manifest(store, model, before))
    if as_json:
        typer.echo(
            json.dumps({"model": model, "release": mine.release, "other": before} | _difference(found), indent=2)
        )
        return
    table = Table("", "file", "size", "digest")
    for how, files in (("new", found.new), ("changed", found.changed), ("gone", found.gone)):
        for file in files:
            table.add_row(how, *_cells(file))
    console().print(table)
    console().print(
        f"{model} {mine.release} against {before}: {len(found.new)} files new, {len(found.changed)} changed, "
        f"{len(found.gone)} gone, {len(found.same)} the same; {decimal(found.size)} new",
        highlight=False,
        soft_wrap=True,
    )


def alias(
    model: ModelArgument,
    name: Annotated[str, typer.Argument(help="Such as prod.")],
    release: Annotated[str | None, typer.Argument(help="Where it shall point: an id, or another alias.")] = None,
    with_history: Annotated[bool, typer.Option("--history", help="Show where it pointed before, too.")] = False,
    remove: Annotated[bool, typer.Option("--drop", help="Remove it, and its history.")] = False,
    fleet: FleetOption = DEFAULT_FLEET,
    as_json: JsonOption = False,
) -> None:
    """Show, move or drop a model's alias. Aliases are kept at the home site."""
    if not is_alias_name(name):
        raise typer.BadParameter(f"{name!r}: use lower-case letters, digits and `-`, and nothing that looks like an id")
    if remove and release:
        raise typer.BadParameter("--drop takes no release")
    declared = load(fleet)
    home = store_of(declared)
    if release:
        now = datetime.now(UTC)
        moved = move(home, model, name, resolve(home, model, release), by=_operator(), now=now)
        _tell(f"{name} of {model} is [bold]{moved.release}[/] since {moved.at:%Y-%m-%d %H:%M:%S} UTC")
        return
    found = find(home, model, name)
    if remove:
        drop(home, model, name)
        _tell(f"{name} of {model} is gone; it was {found.release}")
    elif as_json:
        typer.echo(json.dumps(found.model_dump(mode="json"), indent=2))
    else:
        console().print(_positions_table((found, *(found.history if with_history else ()))))


def pin(model: ModelArgument, release: ReleaseArgument, fleet: FleetOption = DEFAULT_FLEET) -> None:
    """Write a release that the home holds into the fleet file."""
    declared = load(fleet)
    before = model_of(declared, model).release
    chosen = _manifest(store_of(declared), model, _resolved(declared, model, release)).release
    fleet.write_text(pinned(fleet.read_text(), model, chosen))
    _tell(f"{escape(str(fleet))} names [bold]{chosen}[/] for {model} now; it was {before}")


@dataclass(frozen=True)
class Listed:
    """A release as it is listed, with what it is called."""

    model: str
    release: str
    created: str
    files: int
    bytes: int
    source: str
    revision: str | None
    parent: str | None
    aliases: tuple[str, ...]
    pinned: bool


def _listed(fleet: FleetSpec, model: str, manifests: Sequence[Manifest]) -> list[Listed]:
    named = _aliases_if_known(fleet, model)
    return [
        Listed(
            model=model,
            release=manifest.release,
            created=manifest.created.isoformat(),
            files=len(manifest.files),
            bytes=manifest.size,
            source=manifest.source,
            revision=manifest.revision,
            parent=manifest.parent,
            aliases=tuple(alias.name for alias in named if alias.release == manifest.release),
            pinned=(model, manifest.release) in pins(fleet),
        )
        for manifest in manifests
    ]


def _aliases_if_known(fleet: FleetSpec, model: str) -> tuple[Alias, ...]:
    """None where the home can't tell: what a site holds can be seen without it."""
    try:
        return aliases(store_of(fleet), model)
    except WeightsError as error:
        Console(stderr=True, soft_wrap=True).print(f"aliases are not known: {error}", style="yellow", markup=False)
        return ()


def _resolved(fleet: FleetSpec, model: str, name: str) -> str:
    return resolve(store_of(fleet), model, name)


def _manifest(store: Store, model: str, release: str) -> Manifest:
    return load_manifest(store, model, release, f"rayfleet weights list {model}")


def _operator() -> str:
    return f"{psutil.Process().username()}@{socket.gethostname()}"


def _tell(message: str) -> None:
    console().print(message, highlight=False, soft_wrap=True)


def _plain(file: File) -> dict[str, object]:
    return {"path": file.path, "bytes": file.size, "digest": file.digest}


def _difference(found: Difference) -> dict[str, object]:
    files = {how: [_plain(file) for file in getattr(found, how)] for how in ("new", "changed", "gone", "same")}
    return {**files, "bytes_new": found.size}


def _written(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _releases_table(listed: Iterable[Listed]) -> Table:
    table = Table("model", "release", "created", "files", "size", "parent", "called", "source")
    for one in listed:
        called = (*one.aliases, *(["[green]pinned[/]"] if one.pinned else []))
        size, created = decimal(one.bytes), one.created[:16].replace("T", " ")
        source = escape(one.source)
        table.add_row(
            one.model, one.release, created, str(one.files), size, one.parent or "", ", ".join(called), source
        )
    return table


def _cells(file: File) -> tuple[str, str, str]:
    return escape(file.path), decimal(file.size), file.digest[:12]


def _positions_table(positions: Iterable[Position]) -> Table:
    table = Table("release", "since", "by")
    for one in positions:
        table.add_row(one.release, f"{one.at:%Y-%m-%d %H:%M:%S %Z}", escape(one.by))
    return table
