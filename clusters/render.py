"""The Serve `config.yaml` of each site and of the ingress, rendered from the fleet for `serve deploy`."""

from typing import Any, Literal

import yaml

from clusters.fields import Spec
from clusters.notices.notice import NoticeSource
from clusters.scaling import AutoscalingSpec, ScalingPolicy
from clusters.spec import FleetSpec, Loading, PlacementSpec, SiteSpec
from clusters.storage import CacheSpec

AGENT_APP = "fleet-agent"
INGRESS_APP = "rayfleet"
PLANNER_APP = "fleet-planner"
NODES_APP = "fleet-nodes"
REPLICATOR_APP = "fleet-replicator"
ENGINE_DEPLOYMENT = "EngineServer"
"""`ray.serve.llm` names a model's deployment after the server's class, and the model."""

OF_MODEL = {"name", "release", "tasks", "max_model_len"}
OF_PLACEMENT = {
    "site",
    "gpus",
    "cpus",
    "batching",
    "prefix_caching",
    "speculation",
    "warm_up_s",
    "loading",
    "engine",
}
"""What engines know: Ray replaces every replica of an application whose arguments change."""

Config = dict[str, Any]
Device = Literal["gpu", "cpu"]


def site_config(fleet: FleetSpec, site: SiteSpec, host: str, port: int, device: Device | None = None) -> Config:
    """One application per model at the site, the site agent's, those of the replicator of weights and of spot nodes.

    `device` overrides what the pools say: `cpu` runs engines without GPUs and books GPUs only as Ray resources.
    """
    placements = fleet.placements_at(site.name)
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [
            {
                "name": AGENT_APP,
                "route_prefix": "/fleet",
                "import_path": "serve_app.site:agent",
                "args": {
                    "site": site.name,
                    "token_variable": site.token_variable,
                    "placements": [_agent_placement(fleet, placement) for placement in placements],
                },
            },
            _replicator_app(fleet, site),
            *(_model_app(fleet, site, placement, device) for placement in placements),
            *_nodes_app(fleet, site),
        ],
    }


def ingress_config(fleet: FleetSpec, host: str) -> Config:
    """The global ingress. It carries the whole fleet, so that the file alone is the deployment."""
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": fleet.ingress.serve_port},
        "applications": [
            {
                "name": INGRESS_APP,
                "route_prefix": "/",
                "import_path": "serve_app.ingress:build",
                "args": {"fleet": _plain(fleet), "host": host},
            },
            *([_planner_app(fleet)] if fleet.planner.enabled else ()),
        ],
    }


def engine_deployment(model: str) -> str:
    """As `ray.serve.llm` names it."""
    return f"{ENGINE_DEPLOYMENT}:{model.replace('.', '_')}"


def ray_autoscaling(scaling: AutoscalingSpec) -> Config:
    """Ray Serve's `autoscaling_config` for a deployment that our policy scales. Ray updates it in place, but replaces
    every replica when arguments of the policy change: it finds what else there is to know in a note."""
    return {
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        # Replicas note their load so often, and tell it so often: a step is known after at most twice as long.
        "metrics_interval_s": 0.5,
        "look_back_period_s": max(scaling.signal_max_age_s, 2),
        # Ray delays a policy's decisions by its own damping too, 30 s and 600 s unless told: ours is enough.
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
        "policy": {"policy_function": "autoscaling.ray_policy:ReplicaPolicy"},
    }


def to_yaml(config: Config, heading: str) -> str:
    """`heading` becomes the comment on top."""
    comment = "".join(f"# {line}\n" for line in heading.splitlines())
    return comment + yaml.safe_dump(config, sort_keys=False, width=120)


def _planner_app(fleet: FleetSpec) -> Config:
    return {
        "name": PLANNER_APP,
        "route_prefix": None,
        "import_path": "serve_app.planner:build",
        "args": {"fleet": _plain(fleet)},
    }


def _agent_placement(fleet: FleetSpec, placement: PlacementSpec) -> Config:
    model = fleet.model(placement.model)
    return {
        "model": model.name,
        "release": model.release,
        "capacity": placement.capacity,
        "autoscaling": _plain(placement.autoscaling),
    }


def _replicator_app(fleet: FleetSpec, site: SiteSpec) -> Config:
    placements = fleet.placements_at(site.name)
    models = dict.fromkeys(placement.model for placement in placements)
    home_first = sorted(fleet.sites, key=lambda other: other.name != fleet.weights.home)
    cached = [placement for placement in placements if placement.loading is Loading.CACHED]
    return {
        "name": REPLICATOR_APP,
        "route_prefix": None,
        "import_path": "serve_app.site:replicator",
        "args": {
            "site": site.name,
            "sites": [_source(other) for other in home_first],
            "weights": _plain(fleet.weights),
            "wants": [
                {
                    "model": model,
                    "release": fleet.model(model).release,
                    "sites": [other.name for other in fleet.sites if _serves(fleet, other, model)],
                }
                for model in models
            ],
            "pools": {placement.model: placement.resource for placement in cached},
        },
    }


def _nodes_app(fleet: FleetSpec, site: SiteSpec) -> list[Config]:
    """None where no notice can come and the replicas' own demand says which nodes to start."""
    notices = {pool.name: site.notice_source(pool).value for pool in site.pools}
    mixed = [_plain(placement) for placement in fleet.placements_at(site.name) if placement.spot]
    if not mixed and set(notices.values()) == {NoticeSource.NONE}:
        return []
    args = {"pools": [_plain(pool) for pool in site.pools], "notices": notices, "mixed": mixed}
    return [{"name": NODES_APP, "route_prefix": None, "import_path": "serve_app.site:nodes", "args": args}]


def _source(site: SiteSpec) -> Config:
    return {
        "name": site.name,
        "provider": site.provider.value,
        "region": site.region,
        "egress_price": site.egress_price,
        "store": _plain(site.store),
    }


def _serves(fleet: FleetSpec, site: SiteSpec, model: str) -> bool:
    return any(placement.model == model for placement in fleet.placements_at(site.name))


def _model_app(fleet: FleetSpec, site: SiteSpec, placement: PlacementSpec, override: Device | None) -> Config:
    pool = site.pool(placement.pool)
    device = override or ("gpu" if pool.gpus else "cpu")
    return {
        "name": placement.model,
        "route_prefix": f"/models/{placement.model}",
        "import_path": "serve_app.site:model",
        "args": {
            "model": _plain(fleet.model(placement.model), OF_MODEL),
            "placement": _plain(placement, OF_PLACEMENT) | {"resource": placement.resource},
            "device": device,
            "accelerator": pool.accelerator if device == "gpu" else None,
            "gpu_usage": device == "gpu" and placement.autoscaling.policy is ScalingPolicy.UTILISATION,
            "store": _plain(site.store),
            "token_variable": site.token_variable,
            "weights": _plain(fleet.weights, set(CacheSpec.model_fields)),
        },
        "deployments": [
            {
                "name": engine_deployment(placement.model),
                "autoscaling_config": ray_autoscaling(placement.autoscaling),
            }
        ],
    }


def _plain(spec: Spec, fields: set[str] | None = None) -> Config:
    """All of its fields, unless told which."""
    return spec.model_dump(mode="json", exclude_none=True, include=fields)
