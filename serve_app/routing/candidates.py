"""Where fleet.yaml says that a model may be served, and on what terms."""

from dataclasses import dataclass

from clusters.packing import usd_per_node_hour
from clusters.spec import (
    FleetSpec,
    HostedModelSpec,
    HostedSpec,
    Market,
    ModelSpec,
    PlacementSpec,
    Protocol,
    Provider,
    SiteSpec,
    Task,
)
from serve_app.routing.leases import Place

HOSTED_TASKS = {
    Protocol.OPENAI: frozenset((Task.CHAT, Task.COMPLETIONS, Task.EMBEDDINGS)),
    Protocol.ANTHROPIC: frozenset((Task.CHAT,)),
}
IDLE = 0.05
"""Share of its price that prepaid capacity costs as long as it is not full."""
FLOOR_USD_PER_SLOT_S = 1e-9
"""Capacity that was declared to cost nothing is scarce all the same."""
PREFILL_SLOTS = 8
"""A prompt that is being read slows its batch as so many running answers would."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A site's placement of one model, or a hosted target that has it."""

    place: Place
    tasks: frozenset[Task]
    jurisdiction: str
    max_model_len: int
    slots: int
    """Requests that it runs at once as long as no replica count is known."""
    hosted: bool = False
    # Of a placement.
    release: str = ""
    tenants: frozenset[str] = frozenset()
    """Whom it may serve; empty means everyone."""
    max_replicas: int = 0
    start_up_deadline_s: float = 0.0
    market: Market | None = None
    prepaid: bool = False
    """Reserved or our own: its nodes are paid for whether they work or not."""
    usd_per_slot_s: float = 0.0
    usd_per_idle_slot_s: float = 0.0
    """The same, as long as there are free slots."""
    prefill_slots: int = 0
    """That a prompt keeps busy while it is read."""
    usd_per_byte: float = 0.0
    """For answers to leave the site."""
    # Of a hosted target.
    retains_data: bool = False
    last_resort: bool = False
    usd_per_input_token: float = 0.0
    usd_per_output_token: float = 0.0

    @property
    def name(self) -> str:
        return self.place[0]

    @property
    def model(self) -> str:
        return self.place[1]


def candidates(spec: FleetSpec, model: str) -> tuple[Candidate, ...]:
    """Every place of the model."""
    served = spec.model(model)
    placed = [
        _placement(spec.site(placement.site), placement, served)
        for placement in spec.placements
        if placement.model == model
    ]
    hosted = [
        _hosted(target, offer, served) for target in spec.hosted for offer in target.models if offer.model == model
    ]
    return (*placed, *hosted)


def _placement(site: SiteSpec, placement: PlacementSpec, model: ModelSpec) -> Candidate:
    pool = site.pool(placement.pool)
    max_model_len = placement.engine.get("max_model_len")
    usd_per_slot_s = max(_usd_per_replica_s(site, placement) / placement.capacity, FLOOR_USD_PER_SLOT_S)
    prepaid = (pool.market is Market.RESERVED or site.provider is Provider.ONPREM) and not placement.spot
    return Candidate(
        place=(site.name, model.name),
        tasks=frozenset(model.tasks),
        jurisdiction=site.jurisdiction,
        max_model_len=max_model_len if isinstance(max_model_len, int) else model.max_model_len,
        slots=placement.capacity * max(1, placement.autoscaling.min_replicas),
        release=model.release,
        tenants=frozenset(site.tenants),
        max_replicas=placement.autoscaling.max_replicas,
        start_up_deadline_s=placement.autoscaling.start_up_deadline_s,
        market=pool.market,
        prepaid=prepaid,
        usd_per_slot_s=usd_per_slot_s,
        usd_per_idle_slot_s=usd_per_slot_s * (IDLE if prepaid else 1.0),
        prefill_slots=min(PREFILL_SLOTS, placement.capacity),
        usd_per_byte=site.egress_price / 1e9,
    )


def _usd_per_replica_s(site: SiteSpec, placement: PlacementSpec) -> float:
    pool = site.pool(placement.pool)
    nodes = placement.gpus / pool.gpus if pool.gpus and placement.gpus else placement.cpus / pool.cpus
    return usd_per_node_hour(site, placement) / 3600 * nodes


def _hosted(target: HostedSpec, offer: HostedModelSpec, model: ModelSpec) -> Candidate:
    return Candidate(
        place=(target.name, model.name),
        tasks=HOSTED_TASKS[target.protocol] & frozenset(model.tasks),
        jurisdiction=target.jurisdiction,
        max_model_len=model.max_model_len,
        slots=target.max_in_flight,
        hosted=True,
        retains_data=target.retains_data,
        last_resort=target.use == "last_resort",
        usd_per_input_token=offer.usd_per_million_input / 1e6,
        usd_per_output_token=offer.usd_per_million_output / 1e6,
    )
