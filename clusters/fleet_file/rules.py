"""The rules that span fields. Each reads only what it needs, so that a mistake elsewhere doesn't hide the next one."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from clusters.fleet_file.document import Mistake, Where
from clusters.fleet_file.draft import Part
from clusters.fleet_file.shape import did_you_mean, quoted
from clusters.fleet_file.sizes import misfits, odd_gpus
from clusters.spec import Provider, Task


def broken(fleet: Part) -> Iterator[Mistake]:
    """Every rule that the fleet breaks."""
    yield from _duplicates(fleet)
    yield from _dangling(fleet)
    for site in fleet["sites"]:
        yield from _machines(site)
        yield from _store(site)
        for pool in site["pools"]:
            yield from _pool(pool)
            yield from misfits(pool, _placed(fleet, site, pool))
    for model in fleet["models"]:
        yield from _model(model, fleet)
    for placement in fleet["placements"]:
        yield from _ordered(placement["autoscaling"], "min_replicas", "max_replicas")
        yield from _ordered(placement["batching"], "max_num_seqs", "max_num_batched_tokens")
        yield from odd_gpus(placement)
    yield from _machines(fleet["ingress"])
    yield from _ordered(fleet["routing"], "poll_interval_s", "state_max_age_s", equal=False)


def _duplicates(fleet: Part) -> Iterator[Mistake]:
    yield from _repeated("site name", [(site.where("name"), site["name"]) for site in fleet["sites"]])
    yield from _repeated("site endpoint", [(site.where("endpoint"), _host(site)) for site in fleet["sites"]])
    yield from _repeated("model name", [(model.where("name"), model["name"]) for model in fleet["models"]])
    yield from _repeated("key name", [(key.where("name"), key["name"]) for key in fleet["keys"]])
    yield from _repeated("key", [(key.where("sha256"), key["sha256"]) for key in fleet["keys"]])
    for site in fleet["sites"]:
        yield from _repeated("pool name", [(pool.where("name"), pool["name"]) for pool in site["pools"]])
    placed = [(p.at, f"{p['model']} @ {p['site']}") for p in fleet["placements"] if p["model"] and p["site"]]
    yield from _repeated("placement", placed, fix="merge the two: a model has one placement per site")


def _host(site: Part) -> str | None:
    endpoint: str | None = site["endpoint"]
    return endpoint and endpoint.rstrip("/").lower()


def _repeated(what: str, items: list[tuple[Where, Any]], fix: str = "change one of the two") -> Iterator[Mistake]:
    first: dict[Any, Where] = {}
    for at, value in items:
        if value is not None and value in first:
            yield Mistake(at, f"{what} {quoted(value)} is used twice", f"{fix}; the first is {_index(first[value])}")
        first.setdefault(value, at)


def _index(at: Where) -> str:
    """The innermost list item of a place: sites[0].pools[1]."""
    last = max((n for n, step in enumerate(at) if isinstance(step, int)), default=len(at) - 1)
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at[: last + 1]).lstrip(".")


def _dangling(fleet: Part) -> Iterator[Mistake]:
    sites = {site["name"]: site for site in fleet["sites"]}
    models = {model["name"] for model in fleet["models"]}
    yield from _reference(fleet["weights"], "home", "site", set(sites))
    for placement in fleet["placements"]:
        yield from _reference(placement, "model", "model", models)
        yield from _reference(placement, "site", "site", set(sites))
        if placement["site"] in sites:
            pools = {pool["name"] for pool in sites[placement["site"]]["pools"]}
            yield from _reference(placement, "pool", f"pool at {placement['site']}", pools)


def _reference(part: Part, field: str, what: str, known: set[Any]) -> Iterator[Mistake]:
    # A name that is itself mistaken (None) may be the one that is meant; to have none at all is a mistake elsewhere.
    if part[field] is not None and known and part[field] not in known and None not in known:
        options = sorted(known)
        fix = did_you_mean(part[field], options, f"use one of: {', '.join(options)}")
        yield part.mistake(field, f"there is no {what} named {quoted(part[field])}", fix)


def _placed(fleet: Part, site: Part, pool: Part) -> list[Part]:
    names = (site["name"], pool["name"])
    return [p for p in fleet["placements"] if None not in names and (p["site"], p["pool"]) == names]


def _machines(cluster: Part) -> Iterator[Mistake]:
    """Of a site, or of the ingress."""
    machines = cluster["machines"]
    if not machines.values:
        return
    if cluster["provider"] == Provider.GCP:
        if machines.lacks("project"):
            yield machines.mistake("project", "missing: gcp machines belong to a project", "add `project: …`")
        if machines["zones"] is not None and len(machines["zones"]) != 1:
            fix = "name exactly one: `zones: [europe-west4-a]`"
            yield machines.mistake("zones", "Ray puts a gcp cluster into one zone", fix)
    if cluster["provider"] == Provider.ONPREM and "pools" in cluster.values:
        yield from _hosts(cluster, machines["hosts"])


def _hosts(site: Part, hosts: list[str] | None) -> Iterator[Mistake]:
    if len(site["pools"]) > 1:
        yield site.mistake("pools", "Ray knows one kind of node per onprem cluster", "make a site of each further pool")
    for pool in site["pools"][:1]:
        if hosts is not None and pool["max_nodes"] is not None and pool["max_nodes"] > len(hosts):
            message = f"max_nodes is {pool['max_nodes']}, and machines.hosts lists {len(hosts)}"
            yield pool.mistake("max_nodes", message, "list every worker in machines.hosts, or lower max_nodes")


def _store(site: Part) -> Iterator[Mistake]:
    store = site["store"]
    scheme = (store["url"] or "").partition("://")[0]
    if scheme == "gs" and store["profile"] is not None:
        yield store.mistake("profile", "profiles are for s3 stores", "use `credentials_file: …`, or remove it")
    if scheme == "s3" and store["credentials_file"] is not None:
        yield store.mistake("credentials_file", "credential files are for gs stores", "use `profile: …`, or remove it")
    if scheme == "s3" and site["provider"] == Provider.ONPREM and store.lacks("endpoint"):
        message = "missing: an onprem site's s3 store has its own server"
        yield store.mistake("endpoint", message, "add `endpoint: https://…`")


def _pool(pool: Part) -> Iterator[Mistake]:
    yield from _ordered(pool, "min_nodes", "max_nodes")
    if pool["gpus"] == 0 and pool["accelerator"] is not None:
        message = f"nodes with {pool['accelerator']} accelerators have GPUs"
        yield pool.mistake("gpus", message, "add `gpus: …` per node, or remove accelerator")
    if pool["gpus"] and pool.lacks("accelerator"):
        message = "missing: nodes with GPUs have a kind of them"
        yield pool.mistake("accelerator", message, "add `accelerator: …` (L4, A100 …)")


def _model(model: Part, fleet: Part) -> Iterator[Mistake]:
    tasks = model["tasks"] or ()
    if Task.EMBEDDINGS in tasks and len(set(tasks)) > 1:
        yield model.mistake("tasks", "an engine either embeds or writes", "make two models of it")
    for task, times in Counter(tasks).items():
        if times > 1:
            yield model.mistake("tasks", f"{task} is named {times} times", "name it once")
    asked = {placement["model"] for placement in fleet["placements"]}
    if model["name"] is not None and model["name"] not in asked and None not in asked:
        fix = f"add a placement with `model: {model['name']}`, or remove the model"
        yield Mistake(model.at, "no placement serves this model", fix)


def _ordered(part: Part, low: str, high: str, equal: bool = True) -> Iterator[Mistake]:
    if part[low] is None or part[high] is None or part[low] < part[high] or (equal and part[low] == part[high]):
        return
    message = f"{low} {part[low]:g} is {'more than' if equal else 'not below'} {high} {part[high]:g}"
    yield part.mistake(low, message, f"lower {low} or raise {high}")
