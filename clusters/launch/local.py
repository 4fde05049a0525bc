"""The fleet on one machine: a Ray cluster and an object store per site, and the ingress's own cluster.

The same sites, placements and Serve configs as declared; only endpoints, stores and the engines' device differ.
"""

import os
import secrets
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from clusters.launch import ray_head
from clusters.launch.ports import PortBlock, free_blocks
from clusters.launch.processes import LaunchError, Run, clean_environment, end, find, log_tail
from clusters.launch.ray_head import RayHead
from clusters.launch.stores import LocalStore, environ_for_all, start_store
from clusters.machine_nodes import pins
from clusters.notices.notice import NoticeSource
from clusters.render import ingress_config, site_config, to_yaml
from clusters.spec import FleetSpec, KeySpec, SiteSpec

INGRESS = "ingress"
DEPLOY_TIMEOUT_S = 600
FAILED = {"DEPLOY_FAILED", "UNHEALTHY"}

CPU_ENGINE = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # else the sampler is compiled at the first request: 20 s, and it needs a C++ compiler
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


class NoLocalFleet(Exception):
    """The directory holds no running local fleet."""


@dataclass(frozen=True)
class LocalFleet:
    """Everything another process needs to work with a running local fleet. Holds secrets: kept in a 0600 file."""

    run: Run
    fleet: FleetSpec
    heads: Mapping[str, RayHead]
    stores: Mapping[str, LocalStore]
    api_key: str = field(repr=False)
    temp_dir: Path

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.fleet.ingress.port}"

    def config(self, name: str) -> Path:
        """The Serve config of a site or of the ingress."""
        return self.run.directory / name / "config.yaml"


def prepare(declared: FleetSpec, base: Path, directory: Path, port: int) -> LocalFleet:
    """Choose ports, tokens and keys, start the object stores, and write every config. Raises LaunchError.

    Sources of models are relative to `base`. `port` is the ingress's.
    """
    refuse_second_run(directory)
    _private_directory(directory)
    shutil.rmtree(directory / "logs", ignore_errors=True)
    run = Run.new(directory.resolve())
    # Not below TMPDIR: HAProxy's sockets lie 75 characters deeper, and a socket's path ends at 97.
    temp_dir = Path(tempfile.mkdtemp(prefix="rf-", dir="/tmp"))
    try:
        stores = {site.name: start_store(run, site, run.directory / site.name / "store") for site in declared.sites}
        blocks = free_blocks(len(declared.sites) + 1, avoid={port})
        api_key = f"rf-{secrets.token_urlsafe(32)}"
        fleet = localise(declared, base, stores, blocks, port, api_key, run.directory / INGRESS / "requests")
        local = LocalFleet(
            run,
            fleet,
            plan_heads(fleet, environ_for_all(stores.values(), run.directory), blocks, temp_dir),
            stores,
            api_key,
            temp_dir,
        )
        write(local)
    except BaseException:
        end(run.id)
        shutil.rmtree(temp_dir, ignore_errors=True)
        raise
    return local


def localise(
    declared: FleetSpec,
    base: Path,
    stores: Mapping[str, LocalStore],
    blocks: list[PortBlock],
    port: int,
    api_key: str,
    request_log: Path,
) -> FleetSpec:
    """The declared fleet with loopback endpoints, local stores, one more key, and sources by absolute path."""
    sites = tuple(
        site.model_copy(
            update={
                "endpoint": f"http://127.0.0.1:{block.serve}",
                "token_env": site.token_variable,
                "store": stores[site.name].spec,
                # Nobody takes this machine back, and no metadata server is there to ask.
                "pools": tuple(pool.model_copy(update={"notices": NoticeSource.NONE}) for pool in site.pools),
            }
        )
        for site, block in zip(declared.sites, blocks, strict=False)
    )
    key = KeySpec(name="local", sha256=sha256(api_key.encode()).hexdigest(), operator=True)
    return declared.model_copy(
        update={
            "sites": sites,
            "models": tuple(
                model.model_copy(update={"source": _anchored(model.source, base)}) for model in declared.models
            ),
            "ingress": declared.ingress.model_copy(
                update={"port": port, "serve_port": blocks[-1].serve, "request_log": str(request_log)}
            ),
            "keys": (*declared.keys, key),
        }
    )


def _anchored(source: str, base: Path) -> str:
    return source if "://" in source else str((base / source).resolve())


def start_cluster(local: LocalFleet, name: str) -> None:
    """Start the Ray cluster of a site or of the ingress. Raises LaunchError."""
    ray_head.start(local.run, local.heads[name])


def deploy(local: LocalFleet, name: str) -> None:
    """`serve deploy` its config. Raises LaunchError."""
    ray_head.deploy(local.run, local.heads[name], local.config(name))


def wait_running(local: LocalFleet, name: str, report: Callable[[str], None]) -> None:
    """Until every application runs. `report` hears of each change. Raises LaunchError when one fails or time is up."""
    head = local.heads[name]
    deadline = time.monotonic() + DEPLOY_TIMEOUT_S
    shown = ""
    while True:
        applications = ray_head.applications(head)
        statuses = {app: details["status"] for app, details in applications.items()}
        failed = [app for app, status in statuses.items() if status in FAILED]
        if failed:
            messages = "\n".join(f"{app}: {applications[app]['message']}" for app in failed)
            raise LaunchError(f"{name}: {', '.join(failed)} did not start\n{messages[-4000:]}")
        if statuses and set(statuses.values()) == {"RUNNING"}:
            return
        if not statuses and not find(local.run.id, name):
            raise LaunchError(f"{name}: its Ray cluster has ended\n{log_tail(local.run.log(name))}")
        if time.monotonic() > deadline:
            raise LaunchError(
                f"{name} was not running after {DEPLOY_TIMEOUT_S} s: {statuses}\n{log_tail(local.run.log(name))}"
            )
        line = ", ".join(f"{app} {status.lower()}" for app, status in statuses.items())
        if line != shown:
            report(line)
            shown = line
        time.sleep(1)


def stop_cluster(local: LocalFleet, name: str, grace_s: float = 5) -> int:
    """End every process of one site's cluster, or the ingress's, but not its store. Returns how many there were."""
    return ray_head.stop(local.run, local.heads[name], grace_s)


def tear_down(local: LocalFleet, keep_logs: bool = False) -> int:
    """End every process of the run and remove what it wrote. Returns how many processes there were."""
    ended = end(local.run.id)
    shutil.rmtree(local.temp_dir, ignore_errors=True)
    for entry in local.run.directory.iterdir():
        if entry.name == "logs" and keep_logs:
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    return ended


def load(directory: Path) -> LocalFleet:
    """The local fleet that runs from `directory`. Raises NoLocalFleet."""
    try:
        local = TypeAdapter(LocalFleet).validate_json((directory / "run.json").read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise NoLocalFleet(f"no local fleet runs from {directory}: start one with `rayfleet up`") from error
    return local


def refuse_second_run(directory: Path) -> None:
    """Raises LaunchError when a fleet still runs from `directory`; clears the remains of one that was killed."""
    try:
        local = load(directory)
    except NoLocalFleet:
        return
    if find(local.run.id):
        raise LaunchError(
            f"a local fleet already runs from {directory}: end it with `rayfleet down`, or choose another --dir"
        )
    tear_down(local)


def environment(local: LocalFleet) -> dict[str, str]:
    """What commands on this fleet need: every store's credentials, the fleet file, the endpoint and its key."""
    return {
        **environ_for_all(local.stores.values(), local.run.directory),
        "RAYFLEET_FILE": str(local.run.directory / "fleet.yaml"),
        "OPENAI_BASE_URL": f"{local.endpoint}/v1",
        "OPENAI_API_KEY": local.api_key,
    }


def plan_heads(
    fleet: FleetSpec, stores: Mapping[str, str], blocks: list[PortBlock], temp_dir: Path
) -> dict[str, RayHead]:
    """The Ray cluster of each site and of the ingress, each with secrets of its own. `stores` is the environment that
    opens every store: sites copy from each other's.
    """
    tokens = {site.token_variable: secrets.token_urlsafe(32) for site in fleet.sites}
    heads = {
        site.name: _site_head(fleet, site, block, temp_dir / str(number), stores, tokens[site.token_variable])
        for number, (site, block) in enumerate(zip(fleet.sites, blocks, strict=False))
    }
    heads[INGRESS] = RayHead(
        INGRESS, blocks[-1], temp_dir / INGRESS, secrets.token_urlsafe(32), cpus=2, gpus=0, resources={}, environ=tokens
    )
    return heads


def _site_head(
    fleet: FleetSpec, site: SiteSpec, ports: PortBlock, temp_dir: Path, stores: Mapping[str, str], token: str
) -> RayHead:
    """One node that stands for the least nodes of every pool."""
    resources: Counter[str] = Counter()
    for pool in site.pools:
        resources.update(dict.fromkeys(pins(pool, fleet.placements_at(site.name)), pool.min_nodes))
    return RayHead(
        name=site.name,
        ports=ports,
        temp_dir=temp_dir,
        token=secrets.token_urlsafe(32),
        cpus=sum(pool.cpus * pool.min_nodes for pool in site.pools) or 1,
        gpus=sum(pool.gpus * pool.min_nodes for pool in site.pools),
        resources=+resources,
        environ={**CPU_ENGINE, **stores, site.token_variable: token},
    )


def write(local: LocalFleet) -> None:
    """Every config, the environment beside it, and what other processes need to work with this fleet."""
    for site in local.fleet.sites:
        # Each site stands for machines of its own, so each has its own node cache.
        cache = local.fleet.weights.model_copy(update={"cache_dir": str(local.run.directory / site.name / "cache")})
        fleet_there = local.fleet.model_copy(update={"weights": cache})
        config = site_config(fleet_there, site, "127.0.0.1", local.heads[site.name].ports.serve, "cpu")
        _write_config(local, site.name, to_yaml(config, f"{site.name} on this machine, rendered by `rayfleet up`."))
    config = ingress_config(local.fleet, "127.0.0.1")
    _write_config(local, INGRESS, to_yaml(config, "The ingress on this machine, rendered by `rayfleet up`."))
    _write_private(local.run.directory / "env", _exports(environment(local)))
    fleet = local.fleet.model_dump(mode="json", exclude_none=True)
    (local.run.directory / "fleet.yaml").write_text(to_yaml(fleet, "fleet.yaml as it runs on this machine."))
    _write_private(local.run.directory / "run.json", TypeAdapter(LocalFleet).dump_json(local, indent=1))


def _write_config(local: LocalFleet, name: str, text: str) -> None:
    """The config, and beside it the environment in which `serve deploy` and `ray status` work by hand."""
    config = local.config(name)
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(text)
    rays = ray_head.environment(local.heads[name])
    del rays["TMPDIR"]  # of engines, not of a person's shell
    _write_private(config.parent / "env", _exports(rays))


def _exports(environ: Mapping[str, str]) -> bytes:
    """For a shell to source: what differs from what any process here inherits."""
    inherited = clean_environment()
    changed = {name: value for name, value in environ.items() if inherited.get(name) != value}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(changed.items())).encode()


def _private_directory(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
