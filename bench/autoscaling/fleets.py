"""The fleets that are simulated: one model on one kind of card, on demand or also on the spot market."""

from autoscaling.simulate.ports import Place
from clusters.batching import BatchingSpec
from clusters.mix import SpotSpec
from clusters.routing import Preset, RoutingSpec
from clusters.scaling import AutoscalingSpec
from clusters.spec import (
    FleetSpec,
    IngressSpec,
    MachinesSpec,
    Market,
    ModelSpec,
    PlacementSpec,
    PoolSpec,
    Provider,
    SiteSpec,
    Task,
)
from clusters.storage import StoreSpec, WeightsSpec

MODEL = "chat"
ON_DEMAND = "on-demand"
MOST_REPLICAS = 40
USD_PER_HOUR = {
    "L4": (0.9776, 0.3714),
    "A100": (4.096, 1.638),
    "H100": (6.88, 2.75),
}
"""On demand and spot, per card: g6.2xlarge, an eighth of p4de.24xlarge and of p5.48xlarge, us-east-1. List prices, and
spot prices as they were seen: assumptions."""


def fleet(card: str, zones: tuple[str, ...] = ()) -> FleetSpec:
    """A site of nodes on demand, and one of spot nodes per zone."""
    on_demand, spot = USD_PER_HOUR[card]
    sites = [(ON_DEMAND, Market.ON_DEMAND, on_demand), *((zone, Market.SPOT, spot) for zone in zones)]
    return FleetSpec(
        name="bench",
        sites=tuple(_site(name, card, market, usd) for name, market, usd in sites),
        models=(ModelSpec(name=MODEL, source="s", release="0" * 12, tasks=(Task.CHAT,), max_model_len=16_384),),
        placements=tuple(
            PlacementSpec(
                model=MODEL,
                site=name,
                pool="gpus",
                batching=BatchingSpec(max_num_seqs=64, max_num_batched_tokens=2048),
                autoscaling=AutoscalingSpec(min_replicas=0 if zones else 1, max_replicas=MOST_REPLICAS),
            )
            for name, _, _ in sites
        ),
        weights=WeightsSpec(home=ON_DEMAND),
        ingress=IngressSpec(machines=MachinesSpec(head="x")),
        # Replicas that run are paid for, whatever they do: only their load tells them apart.
        routing=RoutingSpec(policy=Preset.LEAST_LOADED),
    )


def mixed_fleet(card: str, spot: SpotSpec) -> FleetSpec:
    """A site of nodes on demand with a pool of spot nodes per zone."""
    alone = fleet(card)
    (site,), (placement,) = alone.sites, alone.placements
    pools = tuple(_pool(zone, card, Market.SPOT, USD_PER_HOUR[card][1]) for zone in spot.pools)
    return alone.model_copy(
        update={
            "sites": (site.model_copy(update={"pools": site.pools + pools}),),
            "placements": (placement.model_copy(update={"spot": spot}),),
        }
    )


def places(spec: FleetSpec) -> tuple[Place, ...]:
    return tuple((placement.site, placement.model) for placement in spec.placements)


def _site(name: str, card: str, market: Market, usd_per_hour: float) -> SiteSpec:
    return SiteSpec(
        name=name,
        provider=Provider.AWS,
        region="r",
        jurisdiction="us",
        endpoint=f"https://{name}.example.com",
        store=StoreSpec(url="s3://b/p"),
        machines=MachinesSpec(head="x"),
        pools=(_pool("gpus", card, market, usd_per_hour),),
    )


def _pool(name: str, card: str, market: Market, usd_per_hour: float) -> PoolSpec:
    return PoolSpec(
        name=name,
        instance_type="x",
        accelerator=card,
        gpus=1,
        cpus=8,
        market=market,
        usd_per_hour=usd_per_hour,
        max_nodes=MOST_REPLICAS,
    )
