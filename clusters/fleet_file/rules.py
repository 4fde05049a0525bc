"""The rules that span fields. Each reads only what it needs, so that a mistake elsewhere doesn't hide the next one."""

from collections import Counter
from collections.abc import Iterable, Iterator

from clusters.fleet_file.document import Mistake
from clusters.fleet_file.draft import Part
from clusters.fleet_file.engines import contradicting, unknown, unworkable
from clusters.fleet_file.mixes import ill_mixed, misplaced
from clusters.fleet_file.names import dangling, duplicates
from clusters.fleet_file.notices import misheard
from clusters.fleet_file.policies import misset
from clusters.fleet_file.residency import unreachable
from clusters.fleet_file.scaling import forgetful, untimely, unwakeable
from clusters.fleet_file.sizes import misfits, odd_gpus
from clusters.fleet_file.tensors import mistaken, unsuited
from clusters.scaling import ScalingPolicy
from clusters.spec import POOLING, WRITING, Provider, Task


def broken(fleet: Part) -> Iterator[Mistake]:
    """Every rule that the fleet breaks."""
    yield from duplicates(fleet)
    yield from dangling(fleet)
    yield from misset(fleet)
    yield from unreachable(fleet)
    for site in fleet["sites"]:
        yield from _machines(site)
        yield from _store(site)
        for pool in site["pools"]:
            yield from _pool(pool)
            yield from unknown(pool)
            yield from misheard(site, pool)
            yield from misplaced(site, pool)
            yield from misfits(pool, _placed(fleet, site, pool), fleet["models"])
    for model in fleet["models"]:
        yield from _model(model, fleet)
        yield from mistaken(model)
    for placement in fleet["placements"]:
        yield from _ordered(placement["autoscaling"], "min_replicas", "max_replicas")
        yield from _unmeasured(placement)
        yield from untimely(placement)
        model = _named(fleet["models"], placement["model"])
        yield from contradicting(placement, model)
        yield from unworkable(placement, model)
        yield from unsuited(placement, model)
        yield from odd_gpus(placement)
        yield from ill_mixed(placement, _named(fleet["sites"], placement["site"]))
    yield from _machines(fleet["ingress"])
    yield from _ordered(fleet["ingress"], "replicas", "max_replicas")
    yield from _ports(fleet["ingress"])
    yield from unwakeable(fleet)
    yield from forgetful(fleet["planner"], fleet["routing"])
    yield from _ordered(fleet["routing"], "poll_interval_s", "state_max_age_s", equal=False)
    yield from _ordered(fleet["routing"]["health"], "ejection_s", "max_ejection_s")
    yield from _ordered(fleet["routing"]["hold"], "max_waiting_per_tenant", "max_waiting")


def _unmeasured(placement: Part) -> Iterator[Mistake]:
    """Scaling by busy cards, where a replica has none to itself."""
    gpus, scaling = placement["gpus"], placement["autoscaling"]
    if gpus is None or gpus >= 1 or scaling["policy"] != ScalingPolicy.UTILISATION:
        return
    if gpus == 0:
        yield scaling.mistake("policy", "replicas without a GPU have none that is busy", "leave it out: queue_depth")
    else:
        message = f"drivers tell of whole cards, and a replica has {gpus:g} of one that others keep busy too"
        yield scaling.mistake("policy", message, "leave it out: queue_depth; or write `gpus: 1`")


def _placed(fleet: Part, site: Part, pool: Part) -> list[Part]:
    names = (site["name"], pool["name"])
    return [p for p in fleet["placements"] if None not in names and (p["site"], p["pool"]) == names]


def _named(parts: Iterable[Part], name: str | None) -> Part | None:
    return next((part for part in parts if name is not None and part["name"] == name), None)


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
    if WRITING.intersection(tasks) and POOLING.intersection(tasks):
        message = f"an engine either writes ({_listed(WRITING)}) or pools ({_listed(POOLING)})"
        yield model.mistake("tasks", message, "make two models of it")
    if Task.TRANSCRIPTION in tasks and len(set(tasks)) > 1:
        yield model.mistake(
            "tasks", "an engine that transcribes does nothing else", "make a model of transcription alone"
        )
    for task, times in Counter(tasks).items():
        if times > 1:
            yield model.mistake("tasks", f"{task} is named {times} times", "name it once")
    asked = {placement["model"] for placement in fleet["placements"]}
    if model["name"] is not None and model["name"] not in asked and None not in asked:
        fix = f"add a placement with `model: {model['name']}`, or remove the model"
        yield Mistake(model.at, "no placement serves this model", fix)


def _listed(tasks: Iterable[Task]) -> str:
    return ", ".join(sorted(tasks))


def _ports(ingress: Part) -> Iterator[Mistake]:
    if ingress["port"] is not None and ingress["port"] == ingress["serve_port"]:
        message = f"Ray Serve's own route cannot share port {ingress['port']} with the clients' port"
        yield ingress.mistake("serve_port", message, "change serve_port or port")


def _ordered(part: Part, low: str, high: str, equal: bool = True) -> Iterator[Mistake]:
    if part[low] is None or part[high] is None or part[low] < part[high] or (equal and part[low] == part[high]):
        return
    message = f"{low} {part[low]:g} is {'more than' if equal else 'not below'} {high} {part[high]:g}"
    yield part.mistake(low, message, f"lower {low} or raise {high}")
