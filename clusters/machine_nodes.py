"""The nodes of one cluster in each provider's terms: `provider`, `available_node_types` and the like of `ray up`."""

from collections.abc import Sequence
from typing import Any

from clusters.spec import MachinesSpec, Market, PlacementSpec, PoolSpec, Provider

DISK_GB = 200  # the engine with its CUDA libraries, and the weights cache
HEAD = "_head"  # no pool is named so
# Ubuntu 24.04 with NVIDIA drivers
AWS_AMI = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
GCP_IMAGE = "projects/deeplearning-platform-release/global/images/family/common-cu129-ubuntu-2404-nvidia-580"

Config = dict[str, Any]
Pools = tuple[PoolSpec, ...]
Placements = Sequence[PlacementSpec]


def nodes(provider: Provider, region: str, machines: MachinesSpec, pools: Pools, placements: Placements = ()) -> Config:
    """A head without engines, and one node type per pool. `placements` are the site's."""
    make = {Provider.AWS: _aws, Provider.GCP: _gcp, Provider.ONPREM: _onprem}[provider]
    return make(region, machines, pools, placements)


def pins(pool: PoolSpec, placements: Placements) -> list[str]:
    """The Ray resources by which replicas find the pool's nodes: its own, and one per placement over several pools."""
    return list(dict.fromkeys((pool.resource, *(p.resource for p in placements if pool.name in p.pools))))


def pool_of(node_type: str, pools: Sequence[PoolSpec]) -> PoolSpec | None:
    """Whose nodes are of this type."""
    return next((pool for pool in pools if node_type in (pool.name, _gcp_type(pool))), None)


def _aws(region: str, machines: MachinesSpec, pools: Pools, placements: Placements) -> Config:
    provider = {"type": "aws", "region": region, "cache_stopped_nodes": False}
    if machines.zones:
        provider["availability_zone"] = ",".join(machines.zones)
    types = {HEAD: _head(_aws_node(machines, machines.head))}
    for pool in pools:
        market = {"InstanceMarketOptions": {"MarketType": "spot"}} if pool.market == Market.SPOT else {}
        # Ray knows the zones of a node type only by subnets.
        subnet = {"SubnetIds": [pool.subnet]} if pool.subnet else {}
        types[pool.name] = _workers(pool, placements, _aws_node(machines, pool.instance_type) | market | subnet)
    return {"provider": provider, "head_node_type": HEAD, "available_node_types": types}


def _aws_node(machines: MachinesSpec, instance_type: str) -> Config:
    node: Config = {
        "InstanceType": instance_type,
        "ImageId": machines.image or f"resolve:ssm:{AWS_AMI}",
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": DISK_GB, "VolumeType": "gp3"}}],
    }
    return node | ({"IamInstanceProfile": {"Arn": machines.identity}} if machines.identity else {})


def _gcp(region: str, machines: MachinesSpec, pools: Pools, placements: Placements) -> Config:
    provider = {"type": "gcp", "region": region, "availability_zone": machines.zones[0]}
    types = {HEAD: _head(_gcp_node(machines, machines.head))}
    for pool in pools:
        node = _gcp_node(machines, pool.instance_type) | _gcp_market(pool)
        types[_gcp_type(pool)] = _workers(pool, placements, node)
    return {
        "provider": {**provider, "project_id": machines.project},
        "head_node_type": HEAD,
        "available_node_types": types,
    }


def _gcp_type(pool: PoolSpec) -> str:
    # Labels of GCP have no dots, names of pools no underscores.
    return pool.name.replace(".", "_")


def _gcp_market(pool: PoolSpec) -> Config:
    if pool.market == Market.SPOT:
        return {"scheduling": {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}}
    # Machines with GPUs cannot move to another host.
    return {"scheduling": {"onHostMaintenance": "TERMINATE"}} if pool.gpus else {}


def _gcp_node(machines: MachinesSpec, machine_type: str) -> Config:
    image = {"sourceImage": machines.image or GCP_IMAGE, "diskSizeGb": DISK_GB}
    node: Config = {
        "machineType": machine_type,
        "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": image}],
    }
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    return node | ({"serviceAccounts": [{"email": machines.identity, "scopes": scopes}]} if machines.identity else {})


def _onprem(region: str, machines: MachinesSpec, pools: Pools, placements: Placements) -> Config:
    # Ray makes the one node type of a local cluster itself.
    least = sum(pool.min_nodes for pool in pools)
    provider = {"type": "local", "head_ip": machines.head, "worker_ips": list(machines.hosts)}
    return {"provider": provider, "min_workers": least}


def _head(node: Config) -> Config:
    return {"resources": {}, "min_workers": 0, "max_workers": 0, "node_config": node}


def _workers(pool: PoolSpec, placements: Placements, node: Config) -> Config:
    # accelerator_type:… is added by Ray on the node.
    resources = {"CPU": pool.cpus, "GPU": pool.gpus} | dict.fromkeys(pins(pool, placements), 1)
    # Nodes beside spot are asked for one by one. Where nobody asks, or too late, Ray chooses: what nobody takes back.
    backing = any(placement.spot and placement.pool == pool.name for placement in placements)
    return {
        "resources": {name: count for name, count in resources.items() if count},
        "min_workers": pool.min_nodes,
        "max_workers": pool.max_nodes,
        **({"priority": 1} if backing else {}),
        "node_config": node,
    }
