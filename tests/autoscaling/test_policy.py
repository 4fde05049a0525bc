"""The scaling decision by example: what it does, when, and how it says so."""

from itertools import pairwise

from autoscaling.policy import decide
from autoscaling.signals import Signal
from autoscaling.state import State
from tests.autoscaling.driving import NOON, Site, signal, spec


def test_a_burst_is_answered_within_two_seconds() -> None:
    site = Site(spec()).run([2.0] * 60)
    site.run([17.0] * 2)
    assert site.target >= 3
    site.step(17)
    assert site.target == 5
    assert site.decisions[-1].reason == "up 3 to 5: 17.0 requests in a burst at 4 per replica"


def test_a_slow_rise_is_averaged_over_the_window() -> None:
    site = Site(spec()).run([3.0] * 60)
    site.step(5)
    assert site.target == 1
    site.run([5.0] * 29)
    assert site.target == 2
    assert not any("burst" in decision.reason for decision in site.decisions)


def test_requests_held_at_the_ingress_count() -> None:
    site = Site(spec())
    decision = site.see(Signal(site.now, running=2, waiting=3, held=11, ready=1, reporting=1))
    assert decision.target == 4
    assert "16.0 requests" in decision.reason


def test_full_kv_caches_ask_for_replicas_however_short_the_queue() -> None:
    site = Site(spec(max_kv_usage=0.8), target=2)
    decision = site.see(Signal(site.now, running=2, waiting=0, kv_usage=0.95, ready=2, reporting=2))
    assert decision.target == 3
    assert decision.reason == "up 2 to 3: 1.90 KV caches in use at 0.8 per replica"


def test_scales_down_only_after_the_delay_to_the_most_that_was_needed() -> None:
    site = Site(spec(scale_down_delay_s=60, window_s=10), target=6).run([22.0] * 60)
    site.run([9.0] * 30).run([1.0] * 30)
    assert site.target == 6
    assert "needs 1, but" in site.decisions[-1].reason
    assert "within 60 s" in site.decisions[-1].reason
    site.run([1.0] * 20)
    assert site.target == 3
    assert site.decisions[-1].reason.startswith("hold 3: 1.0 requests at 4 per replica")
    site.run([1.0] * 60)
    assert site.target == 1


def test_goes_down_in_steps() -> None:
    limits = spec(max_replicas=64, scale_down_delay_s=60, window_s=10, max_down_factor=2, max_down_replicas=10)
    site = Site(limits, target=64).run([250.0] * 60).run([0.0] * 300)
    changes = [
        (second, before - after) for second, (before, after) in enumerate(pairwise(site.targets)) if after != before
    ]
    assert site.target == 1
    assert max(gone for _, gone in changes) == 10
    assert min(later - sooner for (sooner, _), (later, _) in pairwise(changes)) == 10
    assert site.targets[-60:].count(1) == 60


def test_a_floor_of_the_planner_holds_replicas_as_long_as_it_stands_and_no_longer() -> None:
    own = spec(scale_down_delay_s=60, window_s=10)
    site = Site(own.model_copy(update={"min_replicas": 4})).run([2.0] * 120)
    assert site.target == 4
    site.limits = own
    site.run([2.0] * 25)
    assert site.target == 1


def test_those_that_stay_must_have_something_to_spare() -> None:
    limits = spec(scale_down_delay_s=60, scale_down_margin=0.1)
    assert Site(limits, target=3).settle(7.5) == 3
    assert Site(limits, target=3).settle(7.0) == 2
    assert Site(limits, target=1).settle(7.5) == 2


def test_no_data_is_not_zero() -> None:
    site = Site(spec(scale_down_delay_s=10), target=5).run([18.0] * 60).run([None] * 600)
    assert site.target == 5
    assert site.decisions[-1].reason == "hold 5: no replica reported its load"


def test_after_silence_the_delay_begins_anew() -> None:
    site = Site(spec(scale_down_delay_s=60), target=5).run([18.0] * 60).run([None] * 600).run([0.0] * 59)
    assert site.target == 5
    assert "watched for 58 s of 60" in site.decisions[-1].reason


def test_an_old_signal_says_nothing() -> None:
    site = Site(spec(scale_down_delay_s=0), target=5)
    decision = site.see(signal(0, site.now - 11, 5))
    assert decision.target == 5
    assert decision.reason == "hold 5: the load was last read 11 s ago"


def test_replicas_that_do_not_report_count_as_full() -> None:
    site = Site(spec(scale_down_delay_s=10), target=5)
    for _ in range(120):
        site.now += 1
        site.see(Signal(site.now, running=4, waiting=0, ready=5, reporting=3))
    assert site.target == 4


def test_sleeps_after_the_idle_delay_and_wakes_at_once() -> None:
    site = Site(spec(min_replicas=0, scale_down_delay_s=60, scale_to_zero_delay_s=300)).run([1.0]).run([0.0] * 299)
    assert site.target == 1
    site.step(0)
    assert site.target == 0
    assert site.decisions[-1].reason == "down 1 to 0: no request for 300 s"
    assert site.settle(0) == 0
    woken = site.step(0, held=1)
    assert (woken.target, woken.reason) == (1, "up 0 to 1: 1.0 requests wait for it to wake")


def test_many_held_requests_wake_as_many_as_the_slew_limit_lets() -> None:
    site = Site(spec(min_replicas=0, max_up_factor=3), target=0)
    decision = site.step(0, held=30)
    assert decision.target == 3
    assert decision.reason.endswith("; 8 wanted, but at most 3 while 0 are ready")


def test_does_not_sleep_where_at_least_one_is_wanted() -> None:
    assert Site(spec(min_replicas=1, scale_to_zero_delay_s=0)).settle(0) == 1


def test_an_ingress_that_says_nothing_keeps_a_sleeper_asleep() -> None:
    decision = decide(Signal(NOON), State(), spec(min_replicas=0), 0, NOON)
    assert (decision.target, decision.reason) == (0, "hold 0: nothing is ready and the ingress says nothing")


def test_starting_replicas_count_as_coming() -> None:
    site = Site(spec(max_replicas=100), target=2, start_up_s=120)
    site.run(float(8 + second) for second in range(120))
    assert max(site.targets) == 8, "four times the two that are ready"
    assert "at most 8 while 2 are ready" in site.decisions[-1].reason


def test_replicas_that_never_come_are_replaced_once() -> None:
    site = Site(spec(max_replicas=100, start_up_deadline_s=600), target=2, start_up_s=1e9)
    site.run([16.0] * 600)
    assert site.target == 4
    site.run([16.0] * 7200)
    assert site.target == 6
    assert "2 not ready after 600 s, so others are asked for" in site.decisions[-1].reason


def test_bounds_that_move_are_kept_even_without_data() -> None:
    assert decide(Signal(NOON), State(), spec(min_replicas=3), 1, NOON).target == 3
    assert decide(Signal(NOON), State(), spec(max_replicas=3), 5, NOON).target == 3


def test_utilisation_follows_busy_gpus_instead() -> None:
    site = Site(spec(policy="utilisation", target_utilisation=0.5), target=2)
    decision = site.see(
        Signal(site.now, running=99, waiting=99, gpu_utilisation=0.9, ready=2, reporting=2),
    )
    assert decision.target == 4
    assert decision.reason == "up 2 to 4: 1.80 GPUs busy at 0.5 per replica"


def test_utilisation_does_not_take_lost_replicas_for_idle_ones() -> None:
    site = Site(spec(policy="utilisation", scale_down_delay_s=60), target=4)
    for _ in range(300):
        site.now += 1
        site.see(Signal(site.now, held=16, ready=0, reporting=0))
    assert site.target == 4


def test_utilisation_without_readings_holds() -> None:
    site = Site(spec(policy="utilisation", scale_down_delay_s=0), target=2)
    assert site.step(99).reason == "hold 2: no replica reported how busy its GPUs are"
