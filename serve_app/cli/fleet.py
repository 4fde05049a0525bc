"""`rayfleet check`, `schema` and `key`: what can be done with a fleet file without starting anything."""

import hashlib
import json
import re
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clusters.check import InvalidFleet, Problem, load
from clusters.fields import Name
from clusters.packing import PoolPlan, plan, shared_cards
from clusters.spec import FleetSpec, SiteSpec

FleetFile = Annotated[Path, typer.Option("--fleet", envvar="RAYFLEET_FILE", help="The fleet file.")]
Plans = list[tuple[SiteSpec, PoolPlan]]


def check(
    fleet: FleetFile = Path("fleet.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Name every mistake in the fleet file. Of a right one, show which replicas share cards and what nodes cost."""
    try:
        spec = load(fleet)
    except InvalidFleet as error:
        if as_json:
            typer.echo(_json(error.problems, [], None))
        else:
            _print_problems(error.problems)
        raise typer.Exit(1) from None
    plans = [(site, plan(spec, site, pool)) for site in spec.sites for pool in site.pools]
    if as_json:
        typer.echo(_json((), plans, _without_spot(spec)))
    else:
        Console().print(_table(plans, _without_spot(spec)))


def schema() -> None:
    """Print the JSON schema of fleet.yaml, for editors."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    typer.echo(json.dumps(dialect | FleetSpec.model_json_schema(), indent=2))


def key(name: Annotated[str, typer.Argument(help="Who will use it.")]) -> None:
    """Make an API key. It is shown once and kept nowhere: the fleet file has only its hash."""
    if not re.fullmatch(get_args(Name)[1].pattern, name):
        raise typer.BadParameter("use at most 63 lower-case letters, digits, `.` and `-`", param_hint="NAME")
    made = "rf-" + secrets.token_urlsafe(32)
    digest = hashlib.sha256(made.encode()).hexdigest()
    typer.echo(f"{made}\n\n# Shown this once. Its entry in fleet.yaml:\nkeys:\n  - {{name: {name}, sha256: {digest}}}")


def _print_problems(problems: tuple[Problem, ...]) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for problem in problems:
        field = Text(f"{problem.field}: " if problem.field else "", "bold")
        place = (f"{problem.path}:{problem.line}: ", "bold red")
        console.print(Text.assemble(place, field, (problem.message, "red"), f"\n    fix: {problem.fix}"))
    console.print(Text(f"{len(problems)} problem{'' if len(problems) == 1 else 's'}", "bold red"))


def _without_spot(fleet: FleetSpec) -> float | None:
    """USD per hour at most, when no placement gets spot nodes beside its own; None where none has any."""
    if not any(placement.spot for placement in fleet.placements):
        return None
    plans = (plan(fleet, site, pool, spot=False) for site in fleet.sites for pool in site.pools)
    return sum(pool.usd_per_hour[1] for pool in plans)


def _json(problems: tuple[Problem, ...], plans: Plans, without_spot: float | None) -> str:
    found: list[dict[str, Any]] = [asdict(problem) | {"path": str(problem.path)} for problem in problems]
    pools = [
        {
            "site": site.name,
            "pool": pool.pool.name,
            "placements": [placement.model for placement in pool.placements],
            "batching": {
                placement.model: placement.batching.model_dump(exclude_none=True) for placement in pool.placements
            },
            "nodes": dict(zip(("min", "max"), pool.nodes, strict=True)),
            "usd_per_hour": dict(zip(("min", "max"), pool.usd_per_hour, strict=True)),
        }
        for site, pool in plans
    ]
    content = {"problems": found, "pools": pools}
    return json.dumps(content | ({} if without_spot is None else {"usd_per_hour_without_spot": without_spot}), indent=2)


def _table(plans: Plans, without_spot: float | None) -> Table:
    nodes = _range(*(sum(pool.nodes[bound] for _, pool in plans) for bound in (0, 1)))
    usd = _range(*(sum(pool.usd_per_hour[bound] for _, pool in plans) for bound in (0, 1)), digits=2)
    table = Table(title="No problems. From the least to the most replicas:", title_justify="left", show_footer=True)
    if without_spot is not None:
        table.caption = f"Where no spot nodes are to be had: at most {without_spot:.2f} USD/hour"
        table.caption_justify = "left"
    table.add_column("site")
    table.add_column("pool")
    table.add_column("on its cards, at most")
    table.add_column("sequences, tokens a step")
    table.add_column("nodes", nodes, justify="right")
    table.add_column("USD/hour", usd, justify="right")
    for site, pool in plans:
        cost = _range(*pool.usd_per_hour, digits=2)
        table.add_row(site.name, pool.pool.name, _cards(pool), _batching(pool), _range(*pool.nodes), cost)
    return table


def _range(*bounds: float, digits: int = 0) -> str:
    return "-".join(dict.fromkeys(f"{bound:.{digits}f}" for bound in bounds))


def _cards(pool: PoolPlan) -> str:
    """One line per kind of card: `2 cards: 1 × demo-chat 0.5, 2 × demo-embed 0.25`."""
    if pool.most.nodes > pool.nodes[1]:
        return f"not all at once: that takes {pool.most.nodes} nodes"
    if not pool.pool.gpus:
        return _counted(seat.model for seat in pool.most.seats)
    cards = Counter(
        _counted(f"{seat.model} {min(seat.gpus, 1):g}" for seat in seats)
        for seats in shared_cards(pool.most.seats).values()
    )
    return "\n".join(f"{count} card{'' if count == 1 else 's'}: {content}" for content, count in cards.items())


def _batching(pool: PoolPlan) -> str:
    """`demo-chat 56, 2048`: of one replica, as declared or as it follows from the card."""
    return "\n".join(
        f"{placement.model} {placement.batching.max_num_seqs}, {placement.batching.max_num_batched_tokens}"
        for placement in pool.placements
    )


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{count} × {name}" for name, count in Counter(names).items())
