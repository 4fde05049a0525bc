"""The state machine of one place's health."""

import pytest

from clusters.routing import HealthSpec
from serve_app.routing.health import HEALTHY, LEAST_SHARE, PROBE_S, Health

SITES = ("a", "b", "c", "d")
SPEC = HealthSpec(consecutive_errors=3, min_samples=10, success_rate=0.5, window_s=10, ejection_s=5, ramp_s=10)


def health(spec: HealthSpec = SPEC, sites: tuple[str, ...] = SITES) -> Health:
    return Health(spec, {"m": frozenset(sites)})


def eject(health: Health, site: str, now: float) -> None:
    for _ in range(SPEC.consecutive_errors):
        health.failed(site, "m", "reset", now)


def play(health: Health, outcomes: str, now: float) -> None:
    """+ is a success at a, - a failure."""
    for outcome in outcomes:
        if outcome == "+":
            health.succeeded("a", "m", now)
        else:
            health.failed("a", "m", "reset", now)


def ejected(health: Health, site: str, now: float) -> bool:
    return health.verdict(site, "m", now).ejected is not None


def test_what_never_failed_is_healthy() -> None:
    assert health().verdict("a", "m", 0) is HEALTHY


def test_failures_in_a_row_eject() -> None:
    ill = health()
    play(ill, "--+--", 0)
    assert not ejected(ill, "a", 0)
    ill.failed("a", "m", "status 500", 1)
    verdict = ill.verdict("a", "m", 1)
    assert verdict.ejected == "ejected for 5.0 s more: 3 failures in a row, the last: status 500"
    assert not ejected(ill, "b", 1)
    assert ill.verdict("a", "other", 1) is HEALTHY


def test_answers_that_begin_and_break_in_a_row_eject() -> None:
    ill = health()
    for now in range(3):
        assert not ejected(ill, "a", now)
        ill.succeeded("a", "m", now)
        ill.broke("a", "m", "no byte for 30 s", now)
    assert "3 failures in a row, the last: no byte for 30 s" in str(ill.verdict("a", "m", 3).ejected)
    ill.succeeded("a", "m", 8)
    assert not ejected(ill, "a", 8)
    ill.broke("a", "m", "reset", 9)
    assert ejected(ill, "a", 9), "a good beginning was no cure"
    ill.succeeded("a", "m", 30)
    ill.ended("a", "m")
    ill.broke("a", "m", "reset", 31)
    assert not ejected(ill, "a", 31)


def test_an_answer_that_broke_was_no_success() -> None:
    ill = health(SPEC.model_copy(update={"consecutive_errors": 100}))
    for _ in range(10):
        ill.succeeded("a", "m", 0)
        ill.broke("a", "m", "reset", 0)
    assert ejected(ill, "a", 0)


def test_a_low_share_of_successes_ejects() -> None:
    ill = health()
    play(ill, "--+--+--+", 0)
    assert not ejected(ill, "a", 1), "too few to judge"
    ill.failed("a", "m", "reset", 1)
    assert ill.verdict("a", "m", 1).ejected == "ejected for 5.0 s more: 7 of 10 requests failed, the last: reset"


def test_what_the_window_has_left_behind_does_not_count() -> None:
    ill = health()
    play(ill, "--+--+--+", 0)
    play(ill, "--", 11)
    assert not ejected(ill, "a", 11)


def test_after_its_back_off_a_place_gets_one_probe_at_a_time() -> None:
    ill = health()
    eject(ill, "a", 0)
    assert ejected(ill, "a", 4.9)
    assert ill.verdict("a", "m", 5).probe
    ill.probing("a", "m", 5)
    assert ill.verdict("a", "m", 5.1).ejected == "a probe is under way: 3 failures in a row, the last: reset"
    assert ill.verdict("a", "m", 5 + PROBE_S).probe, "a probe that tells nothing does not block for ever"


def test_a_failed_probe_doubles_the_back_off_up_to_its_bound() -> None:
    ill = health()
    now = 0.0
    eject(ill, "a", now)
    for back_off in (5, 10, 20, 40, 80, 120, 120):
        assert ejected(ill, "a", now + back_off - 0.1)
        now += back_off
        assert ill.verdict("a", "m", now).probe
        ill.probing("a", "m", now)
        ill.failed("a", "m", "still dead", now)


def test_a_probe_that_succeeds_readmits_with_a_growing_share() -> None:
    ill = health()
    eject(ill, "a", 0)
    ill.probing("a", "m", 5)
    ill.succeeded("a", "m", 6)
    shares = [ill.verdict("a", "m", now).share for now in (6, 8, 11, 15.9, 16)]
    assert shares == pytest.approx([LEAST_SHARE, 0.2, 0.5, 0.99, 1])
    assert not any(ill.verdict("a", "m", now).probe for now in (6, 16))


def test_old_requests_that_still_succeed_do_not_end_a_back_off() -> None:
    ill = health()
    eject(ill, "a", 0)
    ill.succeeded("a", "m", 1)
    assert ejected(ill, "a", 2)
    assert ill.heard_at("a", "m") == 1


def test_old_requests_that_still_fail_do_not_lengthen_a_back_off() -> None:
    ill = health()
    eject(ill, "a", 0)
    ill.failed("a", "m", "reset", 4)
    assert ill.verdict("a", "m", 5).probe


def test_back_off_starts_over_after_a_long_time_in_health() -> None:
    ill = health()
    eject(ill, "a", 0)
    ill.failed("a", "m", "reset", 5)
    ill.succeeded("a", "m", 15)
    eject(ill, "a", 20)
    assert ejected(ill, "a", 20 + 19.9)
    ill.succeeded("a", "m", 40)
    eject(ill, "a", 40 + SPEC.max_ejection_s + 1)
    assert ill.verdict("a", "m", 40 + SPEC.max_ejection_s + 6).probe


@pytest.mark.parametrize(("share", "sites", "most"), [(0.5, 4, 2), (0.5, 3, 1), (1, 3, 2), (0, 4, 0), (1, 1, 0)])
def test_so_many_are_ejected_and_no_more(share: float, sites: int, most: int) -> None:
    names = SITES[:sites]
    ill = health(SPEC.model_copy(update={"max_ejected_share": share}), names)
    for name in names:
        eject(ill, name, 0)
    assert [ejected(ill, name, 1) for name in names] == [n < most for n in range(sites)]


def test_a_place_that_could_not_be_ejected_is_when_another_comes_back() -> None:
    ill = health(sites=("a", "b"))
    eject(ill, "a", 0)
    eject(ill, "b", 0)
    assert not ejected(ill, "b", 0)
    ill.succeeded("a", "m", 5)
    ill.failed("b", "m", "reset", 6)
    assert ejected(ill, "b", 6)


def test_hosted_targets_are_ejected_by_themselves() -> None:
    ill = health(sites=("a",))
    eject(ill, "hosted", 0)
    assert ejected(ill, "hosted", 1)


def test_rest_ends_by_itself_and_is_bounded() -> None:
    tired = health(sites=("a",))
    tired.rest("a", "m", "status 429", 1e9, 0)
    verdict = tired.verdict("a", "m", SPEC.max_ejection_s - 1)
    assert (verdict.ejected, verdict.resting) == ("rests for 1.0 s more: status 429", True)
    assert tired.verdict("a", "m", SPEC.max_ejection_s) is HEALTHY
