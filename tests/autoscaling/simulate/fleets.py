"""Small fleets to simulate, and the shortest way to run one."""

from collections.abc import Mapping, Sequence
from typing import Any

from autoscaling.simulate.controllers import Fixed
from autoscaling.simulate.engine_model import EngineModel
from autoscaling.simulate.outcome import Outcome
from autoscaling.simulate.ports import Controller, Place
from autoscaling.simulate.scenario import Scenario, Startup
from autoscaling.simulate.traces import Request
from clusters.batching import BatchingSpec
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
from serve_app.simulation import simulate

MODEL = EngineModel(
    source="made up",
    step_s=0.02,
    sequence_s=1e-4,
    kv_token_s=1e-7,
    prefill_token_s=1e-4,
    request_s=0.005,
    kv_tokens=20_000,
)
USD_PER_HOUR = 2.0
ROUND_TRIP_S = 0.01


def fleet(*sites: str, gpus: float = 1.0, market: Market = Market.ON_DEMAND, most: int = 8) -> FleetSpec:
    pool = PoolSpec(
        name="p",
        instance_type="x",
        accelerator="L4",
        gpus=1,
        cpus=8,
        market=market,
        usd_per_hour=USD_PER_HOUR,
        max_nodes=most,
    )
    return FleetSpec(
        name="test",
        sites=tuple(
            SiteSpec(
                name=name,
                provider=Provider.AWS,
                region="r",
                jurisdiction="us",
                endpoint=f"https://{name}.example.com",
                store=StoreSpec(url="s3://b/p"),
                machines=MachinesSpec(head="x"),
                pools=(pool,),
            )
            for name in sites
        ),
        models=(ModelSpec(name="m", source="s", release="0" * 12, tasks=(Task.CHAT,), max_model_len=8192),),
        placements=tuple(
            PlacementSpec(
                model="m",
                site=name,
                pool="p",
                gpus=gpus,
                batching=BatchingSpec(max_num_seqs=16, max_num_batched_tokens=1024),
                autoscaling=AutoscalingSpec(min_replicas=1, max_replicas=most),
            )
            for name in sites
        ),
        weights=WeightsSpec(home=sites[0]),
        ingress=IngressSpec(machines=MachinesSpec(head="x")),
        routing=RoutingSpec(policy=Preset.LEAST_LOADED),
    )


def run(
    spec: FleetSpec,
    requests: Sequence[Request],
    replicas: Mapping[str, int],
    controller: Controller | None = None,
    start_s: float = 10.0,
    **others: Any,
) -> Outcome:
    """`replicas` by site answer from the start, and stay unless a controller says otherwise."""
    initial: dict[Place, int] = {(site, "m"): count for site, count in replicas.items()}
    scenario = Scenario(
        spec,
        tuple(requests),
        {(placement.site, placement.model): MODEL for placement in spec.placements},
        initial=initial,
        startup={(placement.site, placement.model): Startup(start_s, 0.0) for placement in spec.placements},
        round_trip_s=dict.fromkeys((site.name for site in spec.sites), ROUND_TRIP_S),
        **others,
    )
    return simulate(scenario, controller or Fixed(initial))
