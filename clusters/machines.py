"""The machines of each cluster, as files for `ray up`. Pure: rendered from the fleet, and free of secrets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clusters import machine_commands as commands
from clusters.machine_nodes import nodes
from clusters.render import to_yaml
from clusters.spec import FleetSpec, MachinesSpec, PlacementSpec, PoolSpec, Provider, SiteSpec

SITE_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
    "HF_HUB_OFFLINE": "1",  # weights come from the site's store
}
INGRESS_SETTINGS = {"RAY_AUTH_MODE": "token", "RAY_SERVE_ENABLE_HA_PROXY": "1"}
RIGHTS = {  # of a site's nodes: least privilege, spelled out in docs/clouds.md
    Provider.AWS: "read the secret; read and write the site's store, read the others'; run and end EC2 instances,\n"
    "passing its own role to them",
    Provider.GCP: "secretmanager.secretAccessor; storage.objectUser of the site's store, storage.objectViewer of the\n"
    "others', compute.instanceAdmin.v1 and iam.serviceAccountUser",
    Provider.ONPREM: "sudo for ssh_user; the stores' profiles in ~/.aws/credentials",
}

Config = dict[str, Any]


@dataclass(frozen=True)
class _Cluster:
    """What `ray up` needs to know, of a site or of the ingress."""

    name: str
    provider: Provider
    region: str
    machines: MachinesSpec
    pools: tuple[PoolSpec, ...]
    placements: tuple[PlacementSpec, ...]
    settings: Mapping[str, str]
    package: str
    cache_dir: str | None


def render(fleet: FleetSpec) -> dict[str, str]:
    """Every file, by its path below the repository's root."""
    ingress = {"ray-cluster.yaml": to_yaml(ingress_cluster(fleet), _heading(_ingress(fleet), "ray-cluster.yaml"))}
    paths = {f"{directory(fleet, site)}/ray-cluster.yaml": site for site in fleet.sites}
    return ingress | {
        path: to_yaml(ray_cluster(fleet, site), _heading(_site(fleet, site), path)) for path, site in paths.items()
    }


def directory(fleet: FleetSpec, site: SiteSpec) -> str:
    """Where a site's files go: clusters/aws when it is the only site there, else clusters/<site>."""
    alone = sum(other.provider == site.provider for other in fleet.sites) == 1
    return f"clusters/{site.provider if alone else site.name}"


def ray_cluster(fleet: FleetSpec, site: SiteSpec) -> Config:
    """One site: a head without engines, and one node type per pool."""
    return _cluster(_site(fleet, site))


def ingress_cluster(fleet: FleetSpec) -> Config:
    """The ingress: a head alone."""
    return _cluster(_ingress(fleet))


def _site(fleet: FleetSpec, site: SiteSpec) -> _Cluster:
    return _Cluster(
        name=_name(fleet, site.name),
        provider=site.provider,
        region=site.region,
        machines=site.machines,
        pools=site.pools,
        placements=fleet.placements_at(site.name),
        settings=SITE_SETTINGS,
        package=commands.SITE_PACKAGE,
        cache_dir=fleet.weights.cache_dir,
    )


def _ingress(fleet: FleetSpec) -> _Cluster:
    return _Cluster(
        name=_name(fleet, "ingress"),
        provider=fleet.ingress.provider,
        region=fleet.ingress.region,
        machines=fleet.ingress.machines,
        pools=(),
        placements=(),
        settings=INGRESS_SETTINGS,
        package=commands.INGRESS_PACKAGE,
        cache_dir=None,
    )


def _name(fleet: FleetSpec, name: str) -> str:
    return f"{fleet.name}-{name}".replace(".", "-")  # GCP's names have no dots


def _cluster(cluster: _Cluster) -> Config:
    provider, machines = cluster.provider, cluster.machines
    resources = {cluster.pools[0].resource: 1} if provider == Provider.ONPREM and cluster.pools else {}
    return {
        "cluster_name": cluster.name,
        "max_workers": sum(pool.max_nodes for pool in cluster.pools),
        **nodes(provider, cluster.region, machines, cluster.pools, cluster.placements),
        "auth": {"ssh_user": machines.ssh_user},
        "setup_commands": [
            *commands.directories(cluster.cache_dir),
            commands.secrets(provider, cluster.region, machines.project, cluster.name),
            *commands.install(provider, cluster.package),
        ],
        "head_setup_commands": commands.install_autoscaler(provider),
        "worker_setup_commands": [],
        "head_start_ray_commands": commands.start_head(cluster.settings),
        "worker_start_ray_commands": commands.start_worker(cluster.settings, resources),
    }


def _heading(cluster: _Cluster, path: str) -> str:
    rights = RIGHTS[cluster.provider] if cluster.pools else RIGHTS[cluster.provider].partition(";")[0]
    origin = commands.secrets_origin(cluster.provider, cluster.name)
    lines = [
        f"Machines of {cluster.name}. Rendered from fleet.yaml by `rayfleet render`: edit that, not this.",
        f"  ray up {path}    ray dashboard {path}    ray down {path}",
        "Held to Ray's own validation, but not exercised on a real cloud. docs/clouds.md goes through it.",
        f"Secrets: every node reads {commands.SECRETS_FILE}, {origin}.",
        f"Rights: {rights}.",
        "To replace: the address that rayfleet is installed from. `example` is none.",
    ]
    if cluster.provider != Provider.ONPREM and not cluster.machines.identity:
        lines.append(
            "To add: machines.identity in fleet.yaml. The role that Ray makes without it cannot read the secret."
        )
    return "\n".join(lines)
