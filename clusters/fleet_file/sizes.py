"""Whether a pool has room for its replicas: the GPUs and CPUs of each, and the nodes that they need together."""

from collections.abc import Iterator, Sequence

from clusters.fleet_file.document import Mistake
from clusters.fleet_file.draft import Part
from clusters.fleet_file.engines import cramped
from clusters.packing import UNIT, Need, pack
from clusters.spec import Task

SMALLEST_FRACTION = 0.05  # of a card: less holds no engine


def misfits(pool: Part, placements: Sequence[Part], models: Sequence[Part]) -> Iterator[Mistake]:
    """What of a pool's placements doesn't fit: one replica on a node, or all of them on the nodes that there may be."""
    if pool["gpus"] is None or pool["cpus"] is None:
        return
    too_big = {placement.at: list(_too_big(placement, pool, models)) for placement in placements}
    for mistakes in too_big.values():
        yield from mistakes
    if pool["max_nodes"] is not None:
        alone = [p for p in placements if not p.gives("spot")]  # mixes.py has those that are elsewhere too
        yield from _too_many([p for p in alone if not too_big[p.at] and _countable(p)], pool)


def odd_gpus(placement: Part) -> Iterator[Mistake]:
    """GPUs per replica that pack on no node at all."""
    gpus = placement["gpus"]
    if gpus is None:
        return
    if 0 < gpus < SMALLEST_FRACTION:
        fix = f"use at least {SMALLEST_FRACTION}, or 0 on a pool without GPUs"
        yield placement.mistake("gpus", f"{gpus:g} of a card is too little for an engine", fix)
    elif gpus > 1 and gpus != int(gpus):
        fix = f"use {int(gpus)} or {int(gpus) + 1}"
        yield placement.mistake("gpus", f"{gpus:g} doesn't pack: above 1, cards are whole", fix)
    elif gpus != round(gpus * UNIT) / UNIT:
        yield placement.mistake("gpus", f"{gpus} is finer than Ray counts", f"use {round(gpus, 4)}")


def _too_big(placement: Part, pool: Part, models: Sequence[Part]) -> Iterator[Mistake]:
    gpus, cpus = (None if list(odd_gpus(placement)) else placement["gpus"], placement["cpus"])
    if gpus == 0 and pool["gpus"] > 0:
        fix = "give a fraction or more, or use a pool without GPUs"
        yield placement.mistake("gpus", "0, but the pool's nodes have GPUs", fix)
    elif gpus is not None and gpus > 0 and pool["gpus"] == 0:
        yield placement.mistake("gpus", "the pool's nodes have no GPU", "write `gpus: 0`, or use a pool with GPUs")
    elif gpus is not None and gpus > pool["gpus"]:
        message = f"a replica needs {gpus:g} GPUs, and a node of the pool has {pool['gpus']}"
        yield placement.mistake("gpus", message, f"use at most {pool['gpus']}, or a pool with larger nodes")
    elif gpus is not None and not _is_of_tensors(placement, models):
        yield from cramped(placement, pool)
    if cpus is not None and cpus > pool["cpus"]:
        message = f"a replica needs {cpus:g} CPUs, and a node of the pool has {pool['cpus']}"
        yield placement.mistake("cpus", message, f"use at most {pool['cpus']}, or a pool with larger nodes")


def _is_of_tensors(placement: Part, models: Sequence[Part]) -> bool:
    """Its programs may be as small as they like."""
    return any(model["name"] == placement["model"] and Task.INFER in (model["tasks"] or ()) for model in models)


def _too_many(placements: Sequence[Part], pool: Part) -> Iterator[Mistake]:
    most = pool["max_nodes"]
    for placement in placements:
        nodes = _nodes([placement], "max_replicas", pool)
        if nodes > most:
            message = f"this many replicas need {nodes} nodes, and the pool has at most {most}"
            yield placement["autoscaling"].mistake("max_replicas", message, "lower it, or raise the pool's max_nodes")
    nodes = _nodes(placements, "min_replicas", pool)
    if nodes > most:
        message = f"the min_replicas of the placements here need {nodes} nodes, and there are at most {most}"
        yield pool.mistake("max_nodes", message, f"raise it to {nodes}, or lower gpus, cpus or min_replicas")


def _nodes(placements: Sequence[Part], replicas: str, pool: Part) -> int:
    needs = [Need(p["model"] or "", p["gpus"], p["cpus"], p["autoscaling"][replicas]) for p in placements]
    return pack(needs, pool["gpus"], pool["cpus"]).nodes


def _countable(placement: Part) -> bool:
    least, most = placement["autoscaling"]["min_replicas"], placement["autoscaling"]["max_replicas"]
    if None in (placement["gpus"], placement["cpus"], least, most) or list(odd_gpus(placement)):
        return False
    return bool(least <= most)
