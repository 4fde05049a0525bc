"""A simulated placement over several pools: where its replicas are, what they cost, and what a loss of spot does."""

from collections.abc import Sequence

import pytest

from autoscaling.simulate.availability import Availability
from autoscaling.simulate.outcome import Outcome, summary
from autoscaling.simulate.ports import Place, PlacementReading, Target
from clusters.mix import SpotSpec
from clusters.spec import FleetSpec, Market
from tests.autoscaling.simulate.fleets import USD_PER_HOUR, fleet, run
from tests.autoscaling.simulate.test_simulation import conserved, requests

SPOT_USD = 0.5


def mixed(share: float = 0.25, most_spot: int = 8, launch_s: float = 60.0) -> FleetSpec:
    """One site with pool `p` on demand and the spot pools `x` and `y`."""
    plain = fleet("a")
    (site,), (placement,) = plain.sites, plain.placements
    (own,) = site.pools
    zones = [
        own.model_copy(update={"name": name, "market": Market.SPOT, "usd_per_hour": SPOT_USD, "max_nodes": most_spot})
        for name in ("x", "y")
    ]
    spot = SpotSpec(pools=("x", "y"), min_on_demand_share=share, avoid_s=60, launch_s=launch_s)
    return plain.model_copy(
        update={
            "sites": (site.model_copy(update={"pools": (own, *zones)}),),
            "placements": (placement.model_copy(update={"spot": spot}),),
        }
    )


def usd_per_hour(outcome: Outcome) -> float:
    return summary(outcome).usd / (outcome.seconds / 3600)


def ready(outcome: Outcome, at: float) -> int:
    return next(point.ready for point in outcome.course if point.at >= at)


def test_replicas_are_where_the_mix_puts_them_and_cost_what_these_pools_do() -> None:
    asked = requests(200, 4)
    outcome = run(mixed(), asked, {"a": 4})
    conserved(asked, outcome)
    assert usd_per_hour(outcome) == pytest.approx(USD_PER_HOUR + 3 * SPOT_USD)
    assert usd_per_hour(run(mixed(share=1), asked, {"a": 4})) == pytest.approx(4 * USD_PER_HOUR)
    assert usd_per_hour(run(mixed(most_spot=1), asked, {"a": 4})) == pytest.approx(2 * (USD_PER_HOUR + SPOT_USD))


def test_a_lost_pool_takes_its_replicas_only_and_the_mix_replaces_them_elsewhere() -> None:
    asked = requests(1000, 5)
    lost = {("a", "x"): Availability((100.0,), notice_s=30.0, drain_s=0.0)}
    outcome = run(mixed(), asked, {"a": 4}, spot=lost, start_s=20.0)
    conserved(asked, outcome)
    assert summary(outcome).ok == 1000
    assert summary(outcome).interrupted == 2, "two of three spot replicas are in x, the first by name"
    assert summary(outcome).continued > 0
    assert ready(outcome, 50) == ready(outcome, 110) == 4, "replacements start on the notice, not at the loss"
    assert usd_per_hour(outcome) < USD_PER_HOUR + 3.5 * SPOT_USD, "and start in y, not on demand"


def test_without_any_spot_all_is_on_demand() -> None:
    asked = requests(200, 4)
    none = Availability(at_first=False)
    outcome = run(mixed(), asked, {"a": 4}, spot={("a", "x"): none, ("a", "y"): none})
    conserved(asked, outcome)
    assert usd_per_hour(outcome) == pytest.approx(4 * USD_PER_HOUR)


def test_pools_that_have_no_nodes_are_not_waited_for() -> None:
    """Both are lost at 100 s, avoided until 160 s, and say that they have none when one more is wanted at 200 s."""

    class Growing:
        def targets(self, readings: Sequence[PlacementReading], now: float) -> dict[Place, Target]:
            return {("a", "m"): Target(2 if now < 200 else 3, "grows")}

    lost = {("a", name): Availability((100.0,), notice_s=0.0) for name in ("x", "y")}
    spec = mixed(share=0, launch_s=40.0)
    outcome = run(spec, requests(520, 1.5), {"a": 2}, Growing(), spot=lost, start_s=20.0)
    assert summary(outcome).interrupted == 2
    assert ready(outcome, 105) == 0, "nobody gave notice"
    assert ready(outcome, 130) == 2, "pools that were just lost are not waited for"
    assert ready(outcome, 215) == 2
    assert ready(outcome, 230) == 3, "long before launch_s is over"


def test_the_same_mix_comes_of_the_same_seed() -> None:
    asked = requests(300, 5)
    spot = {("a", "x"): Availability((20.0, 40.0), notice_s=5.0)}
    assert run(mixed(), asked, {"a": 4}, spot=spot) == run(mixed(), asked, {"a": 4}, spot=spot)
