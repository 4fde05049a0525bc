"""Fleets, their states and requests, for tests of choices."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from clusters.routing import NEED_SETTINGS, HealthSpec, PolicySpec, Preset, RoutingSpec
from clusters.spec import (
    FleetSpec,
    HostedModelSpec,
    HostedSpec,
    IngressSpec,
    MachinesSpec,
    Market,
    ModelSpec,
    PlacementSpec,
    PoolSpec,
    Protocol,
    Provider,
    SiteSpec,
    Task,
)
from clusters.state import FleetState, Observation, PlacementState, Readiness, SiteState
from clusters.storage import StoreSpec, WeightsSpec
from serve_app.routing.books import Books
from serve_app.routing.choice import Choice, Router
from serve_app.routing.facts import Facts

NOW = 1000.0
RELEASE = "0123456789ab"
FACTS = Facts("m", Task.CHAT, stream=True, body_bytes=400, prompt_tokens=100)
LEAST_LOADED = replace(FACTS, policy="least_loaded")
HEAD = MachinesSpec(head="x")
JURISDICTIONS = ("us", "eu", "ch")


def site(
    name: str,
    *,
    market: Market = Market.ON_DEMAND,
    provider: Provider = Provider.AWS,
    usd: float = 1.0,
    jurisdiction: str = "us",
    **fields: Any,
) -> SiteSpec:
    """With one pool of single GPUs."""
    pool = PoolSpec(name="p", instance_type="x", accelerator="L4", gpus=1, market=market, usd_per_hour=usd)
    return SiteSpec(
        name=name,
        provider=provider,
        region="r",
        jurisdiction=jurisdiction,
        endpoint=f"https://{name}.example.com",
        store=StoreSpec(url="s3://b/p"),
        machines=HEAD,
        pools=(pool,),
        **{"egress_usd_per_gb": 0.0, **fields},
    )


def hosted(name: str, **fields: Any) -> HostedSpec:
    offer = HostedModelSpec(model="m", name="theirs", usd_per_million_input=1, usd_per_million_output=2)
    return HostedSpec.model_validate(
        {
            "name": name,
            "url": "https://api.example.com/v1",
            "key_env": "KEY",
            "jurisdiction": "us",
            "models": (offer,),
            **fields,
        }
    )


def fleet(
    *sites: SiteSpec,
    hosted: tuple[HostedSpec, ...] = (),
    placements: tuple[PlacementSpec, ...] | None = None,
    models: tuple[ModelSpec, ...] | None = None,
    routing: RoutingSpec | None = None,
) -> FleetSpec:
    """Every site has the model `m`, unless `placements` say otherwise."""
    return FleetSpec(
        name="f",
        sites=sites,
        hosted=hosted,
        models=models or (ModelSpec(name="m", source="s", release=RELEASE, tasks=(Task.CHAT,), max_model_len=4096),),
        placements=placements or tuple(placement(each.name) for each in sites),
        weights=WeightsSpec(home=sites[0].name),
        ingress=IngressSpec(machines=HEAD),
        routing=routing or RoutingSpec(),
    )


def names(spec: FleetSpec) -> tuple[str, ...]:
    """Of every site and hosted target."""
    return (*(each.name for each in spec.sites), *(each.name for each in spec.hosted))


def placement(site: str, model: str = "m", **fields: Any) -> PlacementSpec:
    return PlacementSpec(model=model, site=site, pool="p", **({"batching": {"max_num_seqs": 64}} | fields))


def with_policy(preset: Preset, **settings: Any) -> RoutingSpec:
    return RoutingSpec(policy="own", policies={"own": PolicySpec(preset=preset, **settings)})


def observation(site: str, *, age_s: float = 0.5, drain_s: float | None = None, **fields: Any) -> Observation:
    """Of a site with ten free slots for `m`."""
    placement = {
        "model": "m",
        "release": RELEASE,
        "readiness": Readiness.READY,
        "replicas": 1,
        "target_replicas": 1,
        "capacity": 10,
        "running": 0,
        "waiting": 0,
    }
    state = SiteState(
        site=site, at=0, drain_s=drain_s, placements=(PlacementState.model_validate({**placement, **fields}),)
    )
    return Observation(site=site, state=state, read_at=NOW - age_s, round_trip_s=0.01)


def state(*observations: Observation) -> FleetState:
    return FleetState(observations={seen.site: seen for seen in observations})


@dataclass
class Desk:
    """A router with what it needs."""

    spec: FleetSpec
    fleet: FleetState
    seed: int = 0
    now: float = NOW
    books: Books = field(init=False)
    router: Router = field(init=False)

    def __post_init__(self) -> None:
        self.books = Books.of(self.spec)
        self.router = Router(self.spec, self.books, random.Random(self.seed))

    def choose(self, facts: Facts = FACTS, excluded: Mapping[str, str] | None = None) -> Choice:
        return self.router.choose(facts, self.fleet, excluded or {}, self.now)

    def targets(self, facts: Facts = FACTS, times: int = 200) -> set[str | None]:
        """Of so many choices between which nothing changes."""
        return {self.choose(facts).target for _ in range(times)}

    def score(self, name: str, facts: Facts = FACTS) -> float:
        choice = self.choose(facts)
        return choice.scores[choice.permitted.names.index(name)]


def desk(*names: str, routing: RoutingSpec | None = None) -> Desk:
    """Of equal sites, all free."""
    return Desk(fleet(*map(site, names), routing=routing), state(*map(observation, names)))


def measure(at: Desk, *names: str, seconds: float = 0.03, tokens: int = 100) -> None:
    """As many requests as it takes to know the places."""
    for name in names:
        for load in (0, 0.3, 0.6, 0.8, 1):
            at.books.latency.first_token(name, "m", seconds, tokens, load, at.now)
        at.books.latency.finished(name, "m", 256, 256 * 0.02, at.now)


# Random ones. A plain generator from one seed is much faster than strategies, field by field.


def random_fleet(rng: random.Random) -> FleetSpec:
    sites = [
        site(
            f"s{n}",
            market=rng.choice(list(Market)),
            provider=rng.choice(list(Provider)),
            usd=rng.choice((0, 0.5, 4)),
            jurisdiction=rng.choice(JURISDICTIONS),
            tenants=rng.choice(((), (), ("t",), ("t", "u"))),
        )
        for n in range(rng.randint(1, 5))
    ]
    targets = [
        hosted(
            f"h{n}",
            jurisdiction=rng.choice(JURISDICTIONS),
            retains_data=rng.random() < 0.5,
            use=rng.choice(("last_resort", "by_price")),
            protocol=rng.choice(list(Protocol)),
        )
        for n in range(rng.randint(0, 2))
    ]
    models = tuple(
        ModelSpec(name=name, source="s", release=RELEASE, tasks=tasks, max_model_len=4096)
        for name, tasks in (("m", (Task.CHAT, Task.COMPLETIONS)), ("e", (Task.EMBEDDINGS,)))
    )
    placed = [placement(each.name, rng.choice("mme")) for each in sites]
    return fleet(*sites, hosted=tuple(targets), placements=tuple(placed), models=models, routing=_random_routing(rng))


def _random_routing(rng: random.Random) -> RoutingSpec:
    preset = rng.choice(list(Preset))
    settings = PolicySpec(preset=preset, weights={"s0": 3.0, "s1": 0.0, "h0": 1.0}, order=("s1", "h0", "s0"))
    return RoutingSpec(policy="own", policies={"own": settings}, health=HealthSpec(consecutive_errors=1))


def random_state(rng: random.Random, spec: FleetSpec) -> FleetState:
    return state(*(_random_observation(rng, each.name) for each in spec.sites if rng.random() < 0.95))


def _random_observation(rng: random.Random, site: str) -> Observation:
    if rng.random() < 0.1:
        return Observation(site=site, error="no connection")
    return observation(
        site,
        age_s=rng.choice((0, 0.5, 4, 9)),
        drain_s=rng.choice((None, None, None, 5)),
        model=rng.choice("mme"),
        release=rng.choice((RELEASE, RELEASE, RELEASE, "ba9876543210")),
        readiness=rng.choice((Readiness.READY, Readiness.READY, Readiness.STARTING, Readiness.FAILED)),
        replicas=rng.choice((0, 1, 2)),
        running=rng.choice((None, 0, 5, 100)),
    )


def random_facts(rng: random.Random, spec: FleetSpec, blocks: tuple[int, ...] = ()) -> Facts:
    residency = rng.choice((None, *range(len(JURISDICTIONS) + 1)))
    return Facts(
        model=rng.choice("mme"),
        task=rng.choice((Task.CHAT, Task.CHAT, Task.EMBEDDINGS, None)),
        stream=rng.random() < 0.5,
        body_bytes=100,
        only_site=rng.choice((None, None, None, rng.choice(names(spec)), "nowhere")),
        prompt_tokens=rng.choice((0, 100, 3000)),
        max_tokens=rng.choice((None, 1, 1000)),
        blocks=blocks,
        session=rng.choice((None, 7)),
        tenant=rng.choice("tuv"),
        jurisdictions=None if residency is None else frozenset(rng.sample(JURISDICTIONS, residency)),
        hosted=rng.choice(("any", "any", "no_retention", "never")),
        policy=rng.choice((None, "own", *(preset.value for preset in Preset if preset not in NEED_SETTINGS))),
        min_context=rng.choice((0, 0, 0, 5000)),
    )


def disturb(rng: random.Random, desk: Desk, blocks: tuple[int, ...]) -> None:
    """Fill the books with anything that may happen."""
    books = desk.books
    for name in names(desk.spec):
        for model in "me":
            for _ in range(rng.choice((0, 0, 1, 30))):
                books.leases.take(name, model)
            at = desk.now - rng.choice((0.0, 1.0, 20.0, 100.0))
            match rng.randrange(5):
                case 0:
                    books.health.failed(name, model, "reset", at)
                case 1:
                    books.health.succeeded(name, model, at)
                case 2:
                    books.health.rest(name, model, "status 429", 5, at)
            if rng.random() < 0.5:
                books.latency.first_token(name, model, rng.random(), rng.randrange(1000), 2 * rng.random(), at)
                books.latency.finished(name, model, rng.randrange(1, 500), rng.random(), at)
        if rng.random() < 0.5:
            books.prefixes.learn(blocks[: rng.randint(0, len(blocks))], name, 7, 2000)
