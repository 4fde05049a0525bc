"""Placements over several pools: whether spot stands beside nodes that stay, and all of them are alike."""

from collections.abc import Iterator

from clusters.fleet_file.document import Mistake
from clusters.fleet_file.draft import Part
from clusters.fleet_file.names import items, missing, repeated
from clusters.mix import on_demand
from clusters.packing import Need, pack
from clusters.spec import Market, Provider


def ill_mixed(placement: Part, site: Part | None) -> Iterator[Mistake]:
    """What is wrong with a placement's `spot`."""
    if not placement.gives("spot") or site is None:
        return
    pools = {pool["name"]: pool for pool in site["pools"]}
    spot, own = placement["spot"], pools.get(placement["pool"])
    named = items(spot, "pools")
    yield from missing(named, f"pool at {site['name']}", pools.keys())
    yield from repeated("pool", named, fix="name it once")
    if own is None:
        return
    if own["market"] == Market.SPOT:
        fix = "name an on-demand or reserved pool, and this one in spot.pools"
        yield placement.mistake("pool", "is spot itself, so nothing would stay", fix)
        return
    beside = [(at, pools[name]) for at, name in named if name in pools]
    for at, pool in beside:
        yield from (Mistake(at, message, fix) for message, fix in _unlike(pool, own, placement))
    yield from _too_few(placement, own, [pool for _, pool in beside])


def misplaced(site: Part, pool: Part) -> Iterator[Mistake]:
    """Zones of pools, where there are none."""
    if pool["subnet"] is not None and site["provider"] not in (None, Provider.AWS):
        reasons = {Provider.GCP: "Ray puts a gcp cluster into one zone", Provider.ONPREM: "onprem has no subnets"}
        yield pool.mistake("subnet", reasons[site["provider"]], "remove it; subnets are for aws")


def _unlike(pool: Part, own: Part, placement: Part) -> Iterator[tuple[str, str]]:
    """What keeps a pool from standing beside the placement's own, and what to do."""
    name, base = pool["name"], own["name"]
    if pool["market"] is not None and pool["market"] != Market.SPOT:
        yield f"{name} is not spot", "name pools with `market: spot`"
    for field in ("accelerator", "gpus"):
        if field in pool.values and field in own.values and pool[field] != own[field]:
            yield f"{name} has {field} {pool[field]}, and {base} has {own[field]}", "name pools with the same cards"
    if None not in (pool["cpus"], placement["cpus"]) and placement["cpus"] > pool["cpus"]:
        yield f"a replica needs {placement['cpus']:g} CPUs, and a node of {name} has {pool['cpus']}", "use larger nodes"
    if None not in (pool["usd_per_hour"], own["usd_per_hour"]) and pool["usd_per_hour"] > own["usd_per_hour"] > 0:
        yield f"{name} costs more per hour than {base}", "leave it out, or correct usd_per_hour"


def _too_few(placement: Part, own: Part, beside: list[Part]) -> Iterator[Mistake]:
    """All the nodes that there may be, against the most replicas."""
    pools, scaling, share = [own, *beside], placement["autoscaling"], placement["spot"]["min_on_demand_share"]
    facts = [pool[field] for pool in pools for field in ("gpus", "cpus", "max_nodes")]
    if None in (*facts, placement["gpus"], placement["cpus"], scaling["max_replicas"], share):
        return
    need = Need(placement["model"] or "", placement["gpus"], placement["cpus"], scaling["max_replicas"])
    try:
        nodes = pack([need], min(pool["gpus"] for pool in pools), min(pool["cpus"] for pool in pools)).nodes
    except ValueError:  # one replica is too large: said elsewhere
        return
    if nodes > (most := sum(pool["max_nodes"] for pool in pools)):
        message = f"this many replicas need {nodes} nodes, and the pools have at most {most}"
        yield scaling.mistake("max_replicas", message, "lower it, or raise the pools' max_nodes")
    elif (least := on_demand(nodes, share)) > own["max_nodes"]:
        message = f"of {nodes} nodes that is {least}, and {own['name']} has at most {own['max_nodes']}"
        yield placement["spot"].mistake("min_on_demand_share", message, "lower it, or raise the pool's max_nodes")
