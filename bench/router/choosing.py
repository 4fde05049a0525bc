"""CPU time of one choice, with everything that belongs to it: leases, measurements, health, the prefix index."""

import itertools
import random
import statistics
import time

from clusters.spec import (
    FleetSpec,
    IngressSpec,
    MachinesSpec,
    ModelSpec,
    PlacementSpec,
    PoolSpec,
    Provider,
    SiteSpec,
    Task,
)
from clusters.state import FleetState, Observation, PlacementState, Readiness, SiteState
from clusters.storage import StoreSpec, WeightsSpec
from serve_app.routing.books import Books
from serve_app.routing.choice import Router
from serve_app.routing.facts import Facts
from serve_app.routing.prefixes import hash_blocks

REPEATS = 15
CHOICES = 1000
CHOICES_PER_S = 1000
IN_FLIGHT = 200
PROMPT_BYTES = 8192
CONVERSATIONS = 64


def choose_100() -> float:
    """Seconds of CPU per choice among 100 sites, the median of repeats."""
    return seconds_per_choice(100)


def seconds_per_choice(sites: int) -> float:
    """One process, one model at every site, requests coming and going, every site read once a second. Only `choose` is
    timed: telling the books of what happened is the relay's work."""
    spec = _fleet(sites)
    books = Books.of(spec)
    router = Router(spec, books, random.Random(1))
    fleet = FleetState(observations={site.name: _observation(site.name, 0.0) for site in spec.sites})
    conversations = [_facts(n) for n in range(CONVERSATIONS)]
    in_flight: list[str] = []
    now = 0.0
    means = []
    clock_s = _clock_s()
    turn, every = itertools.cycle(spec.sites), max(1, CHOICES_PER_S // sites)
    for _ in range(REPEATS):
        spent = 0.0
        for n in range(CHOICES):
            now += 1 / CHOICES_PER_S
            if n % every == 0:
                seen = next(turn).name
                fleet = FleetState(observations={**fleet.observations, seen: _observation(seen, now)})
            facts = conversations[n % CONVERSATIONS]
            began = time.process_time()
            choice = router.choose(facts, fleet, {}, now)
            spent += time.process_time() - began - clock_s
            target = choice.target or "nowhere"
            books.leases.take(target, "m")
            books.latency.first_token(target, "m", 0.05, choice.uncached_tokens, choice.load, now)
            books.health.succeeded(target, "m", now)
            books.prefixes.learn(facts.blocks, target)
            in_flight.append(target)
            if len(in_flight) > IN_FLIGHT:
                leaving = in_flight.pop(0)
                books.leases.release(leaving, "m")
                books.latency.finished(leaving, "m", 100, 1.5, now)
        means.append(spent / CHOICES)
    return statistics.median(means)


def _clock_s() -> float:
    """CPU time that reading the clock adds to what is timed."""
    began = time.process_time()
    for _ in range(1000):
        time.process_time()
    return (time.process_time() - began) / 1000


def _facts(n: int) -> Facts:
    prompt = random.Random(n).randbytes(PROMPT_BYTES)
    return Facts(
        "m",
        Task.CHAT,
        stream=True,
        body_bytes=PROMPT_BYTES,
        prompt_tokens=PROMPT_BYTES // 4,
        max_tokens=200,
        blocks=hash_blocks(b"m", prompt),
        tenant="t",
        jurisdictions=frozenset({"us", "eu"}),
    )


def _observation(site: str, now: float) -> Observation:
    placement = PlacementState(
        model="m",
        release="0" * 12,
        readiness=Readiness.READY,
        replicas=2,
        target_replicas=2,
        capacity=16,
        running=5,
        waiting=0,
    )
    return Observation(
        site=site, state=SiteState(site=site, at=now, placements=(placement,)), read_at=now, round_trip_s=0.01
    )


def _fleet(sites: int) -> FleetSpec:
    names = [f"site-{n}" for n in range(sites)]
    pool = PoolSpec(name="p", instance_type="x", accelerator="L4", gpus=1, usd_per_hour=0.7)
    return FleetSpec(
        name="bench",
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
            for name in names
        ),
        models=(ModelSpec(name="m", source="s", release="0" * 12, tasks=(Task.CHAT,), max_model_len=32768),),
        placements=tuple(PlacementSpec(model="m", site=name, pool="p") for name in names),
        weights=WeightsSpec(home=names[0]),
        ingress=IngressSpec(machines=MachinesSpec(head="x")),
    )


if __name__ == "__main__":
    for count in (3, 100):
        print(f"{count} sites: {1e6 * seconds_per_choice(count):.1f} µs per choice")
