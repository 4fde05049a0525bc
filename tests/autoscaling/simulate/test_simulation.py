"""Whole simulations: nothing is lost, nothing is made up, and faults do what they should."""

import random

import pytest

from autoscaling.simulate.availability import Availability, Outage
from autoscaling.simulate.controllers import Rayfleet
from autoscaling.simulate.outcome import End, Outcome, site_summaries, summary
from autoscaling.simulate.traces import Request
from clusters.scaling import AutoscalingSpec
from tests.autoscaling.simulate.fleets import MODEL, ROUND_TRIP_S, USD_PER_HOUR, fleet, run


def requests(count: int, per_s: float, seed: int = 1) -> list[Request]:
    rng = random.Random(seed)
    at = 0.0
    made = []
    for _ in range(count):
        at += rng.expovariate(per_s)
        made.append(Request(at, rng.randint(10, 1500), rng.randint(1, 120), "m"))
    return made


def conserved(asked: list[Request], outcome: Outcome) -> None:
    assert len(outcome.served) == len(asked)
    for request, served in zip(asked, outcome.served, strict=True):
        assert (served.at, served.prompt_tokens) == (request.at, request.prompt_tokens)
        if served.end is End.OK:
            assert served.output_tokens == request.output_tokens
            assert served.ttft_s is not None
            assert served.ttft_s > 0
        else:
            assert served.output_tokens < request.output_tokens
    sums = [sum(getattr(each, name) for each in site_summaries(outcome)) for name in ("requests", "ok", "usd")]
    total = summary(outcome)
    answered = sum(bool(served.site) for served in outcome.served)
    assert sums == [answered, total.ok, pytest.approx(total.usd)]


def test_a_request_alone_takes_what_the_model_says() -> None:
    outcome = run(fleet("a"), [Request(1.0, 500, 11, "m")], {"a": 1})
    (served,) = outcome.served
    assert served.ttft_s == pytest.approx(ROUND_TRIP_S + MODEL.alone_s(500))
    assert served.tpot_s == pytest.approx(MODEL.decode_s(1, 500), rel=0.01)


def test_every_request_ends_once_and_its_tokens_add_up() -> None:
    asked = requests(800, 12)
    outcome = run(fleet("a", "b", "c"), asked, {"a": 1, "b": 1, "c": 1})
    conserved(asked, outcome)
    assert summary(outcome).ok == 800
    assert all(each.requests > 100 for each in site_summaries(outcome))


def test_the_same_seed_gives_the_same_outcome() -> None:
    asked = requests(300, 10)
    limits = AutoscalingSpec(max_replicas=6, target_queue_depth=4)

    def once(seed: int) -> Outcome:
        controller = Rayfleet({("a", "m"): limits, ("b", "m"): limits})
        return run(fleet("a", "b"), asked, {"a": 1, "b": 1}, controller, seed=seed)

    assert once(1) == once(1)
    assert once(1).served != once(2).served


def test_gpu_hours_and_dollars_are_those_of_the_nodes() -> None:
    outcome = run(fleet("a", gpus=0.5), requests(50, 1), {"a": 3})
    (site,) = site_summaries(outcome)
    assert site.gpu_hours == pytest.approx(1.5 * outcome.seconds / 3600)
    assert site.usd == pytest.approx(2 * USD_PER_HOUR * outcome.seconds / 3600)


def test_more_load_than_capacity_is_held_and_then_refused() -> None:
    asked = requests(3000, 100)
    outcome = run(fleet("a"), asked, {"a": 1})
    conserved(asked, outcome)
    ends = [served.end for served in outcome.served]
    assert ends.count(End.HELD_OUT) > 1000
    assert set(ends) == {End.OK, End.HELD_OUT}
    assert max(served.held_s for served in outcome.served) <= 30 + 1e-6
    assert outcome.worst_queue > 200


def test_what_no_cache_can_hold_is_refused() -> None:
    outcome = run(fleet("a"), [Request(0.0, 30_000, 10, "m"), Request(0.1, 30, 10, "m")], {"a": 1})
    assert [served.end for served in outcome.served] == [End.REFUSED, End.OK]


def test_load_asks_for_replicas_that_answer_after_their_start() -> None:
    asked = requests(1500, 15)
    limits = AutoscalingSpec(max_replicas=6, target_queue_depth=8, window_s=10)
    outcome = run(fleet("a"), asked, {"a": 1}, Rayfleet({("a", "m"): limits}), start_s=20)
    conserved(asked, outcome)
    up = outcome.changes[0]
    assert up.after > up.before
    assert "at 8 per replica" in up.reason
    ready_at = next(point.at for point in outcome.course if point.ready > 1)
    assert up.at + 20 <= ready_at <= up.at + 26


def test_requests_follow_their_prefix_to_where_it_is_cached() -> None:
    rng = random.Random(3)
    prefixes = [tuple(range(1000 * n, 1000 * n + 2)) for n in range(4)]
    asked = [Request(n * 0.5, 1200, 5, "m", blocks=prefixes[rng.randrange(4)], block_tokens=512) for n in range(200)]
    outcome = run(fleet("a", "b"), asked, {"a": 1, "b": 1})
    assert summary(outcome).cached_share > 0.8
    cached = [served.ttft_s for served in outcome.served if served.cached_tokens]
    assert min(ttft for ttft in cached if ttft) == pytest.approx(ROUND_TRIP_S + MODEL.alone_s(1200 - 1024), rel=0.01)
    plain = fleet("a", "b")
    switched_off = tuple(each.model_copy(update={"prefix_caching": False}) for each in plain.placements)
    outcome = run(plain.model_copy(update={"placements": switched_off}), asked, {"a": 1, "b": 1})
    assert summary(outcome).cached_share == 0


def test_a_request_for_one_site_stays_there() -> None:
    asked = [Request(n * 0.1, 100, 5, "m", only_site="b") for n in range(50)]
    outcome = run(fleet("a", "b"), asked, {"a": 1, "b": 1})
    assert {served.site for served in outcome.served} == {"b"}


@pytest.mark.parametrize("drain_s", [120.0, 1.0])
def test_streams_of_a_lost_spot_pool_go_on_elsewhere(drain_s: float) -> None:
    asked = requests(600, 6)
    spot = {("a", "p"): Availability((50.0, 80.0), notice_s=5.0, drain_s=drain_s)}
    outcome = run(fleet("a", "b"), asked, {"a": 2, "b": 2}, spot=spot)
    conserved(asked, outcome)
    assert summary(outcome).ok == 600
    assert sum(each.interrupted for each in outcome.sites) == 2
    assert (summary(outcome).continued > 0) == (drain_s < 5), "within 5 s, all that runs comes to its end"
    answered = [(served.at, served.site) for served in outcome.served]
    assert {site for at, site in answered if 51 < at < 89} == {"b"}
    assert "a" in {site for at, site in answered if at > 92}
    assert outcome.sites[0].gpu_hours < outcome.sites[1].gpu_hours


def test_a_site_that_is_out_is_avoided_and_comes_back() -> None:
    asked = requests(600, 6)
    outcome = run(fleet("a", "b"), asked, {"a": 2, "b": 2}, outages=(Outage("a", 30.0, 60.0),))
    conserved(asked, outcome)
    assert summary(outcome).ok == 600
    assert summary(outcome).continued > 0
    assert {served.site for served in outcome.served if 36 < served.at < 59} == {"b"}
    assert "a" in {served.site for served in outcome.served if served.at > 75}


def test_an_outage_everywhere_cuts_what_runs() -> None:
    asked = requests(100, 5)
    outcome = run(fleet("a"), asked, {"a": 2}, outages=(Outage("a", 10.0, 4000.0),))
    conserved(asked, outcome)
    assert {End.CUT, End.FAILED} <= {served.end for served in outcome.served}
