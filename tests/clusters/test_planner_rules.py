"""Mistakes in what the planner is told, and in a placement's times of scaling."""

import pytest

from clusters.check import problems
from tests.clusters.mistakes import FLEET, assert_mistake

WEIGHTS = "weights: {home: home}"
SCALING = "placements[0] (chat @ east).autoscaling"
SLEEPER = "placements[2] (embed @ home).autoscaling.min_replicas"

# Settings of the planner, field, part of the message, part of the fix.
MISTAKES = [
    ("{enabled: false}", None, "", ""),
    ("{interval_s: 10}", None, "", ""),
    ("{interval_s: 11}", "planner.lifetime_s", "30 s are less than 3 intervals of 11 s", "at least 33"),
    ("{lifetime_s: 14}", "planner.lifetime_s", "14 s are less than 3 intervals of 5 s", "a shorter interval_s"),
    ("{lifetime_s: 601}", "planner.lifetime_s", "601 is out of range", "at most 600"),
    ("{interval_s: 0}", "planner.interval_s", "0 is out of range", "more than 0"),
    ("{silent_s: .nan}", "planner.silent_s", "not a number", "ordinary number"),
    ("{silent_s: 5}", None, "", ""),
    ("{silent_s: 4}", "planner.silent_s", "less than interval_s 5: one look that fails", "at least 5"),
    ("{interval_s: 1, silent_s: 4}", "planner.silent_s", "less than routing.state_max_age_s 5", "at least 5"),
    ("{intervall_s: 5}", "planner.intervall_s", "unknown field", "did you mean `interval_s`?"),
]


@pytest.mark.parametrize(("planner", "field", "message", "fix"), MISTAKES)
def test_one_mistake(planner: str, field: str | None, message: str, fix: str) -> None:
    assert_mistake(WEIGHTS, f"{WEIGHTS}\nplanner: {planner}", field, message, fix)


# Settings of autoscaling, field, part of the message, part of the fix.
TIMES = [
    ("start_up_s: 300, start_up_deadline_s: 60", "start_up_deadline_s", "every start would be late", "more than 300"),
    ("start_up_deadline_s: 120", "start_up_deadline_s", "with start_up_s 120", "more than 120"),
    ("start_up_s: 0, start_up_deadline_s: 1", None, "", ""),
    ("signal_max_age_s: 0.5", "signal_max_age_s", "mostly none would be known", "at least 2"),
    ("signal_max_age_s: 2", None, "", ""),
    ("panic_window_s: 31", "panic_window_s", "31 s are more than window_s 30", "raise window_s"),
    ("panic_window_s: 5, window_s: 5", None, "", ""),
    ("window_s: 1", None, "", ""),
]


@pytest.mark.parametrize(("times", "field", "message", "fix"), TIMES)
def test_one_mistaken_time(times: str, field: str | None, message: str, fix: str) -> None:
    assert_mistake("min_replicas: 1,", f"{times}, min_replicas: 1,", field and f"{SCALING}.{field}", message, fix)


# Settings of the only placement of a model, what follows it, and whether it is a mistake.
WAKING = [
    ("start_up_s: 301", "", SLEEPER),
    ("start_up_s: 300", "", None),
    ("start_up_s: 300", ", hold: {wake_s: 299}", SLEEPER),
    ("start_up_s: 899", ", hold: {wake_s: 899}", None),
]


@pytest.mark.parametrize(("times", "hold", "field"), WAKING)
def test_who_waits_for_a_sleeper_is_not_refused_before_it_wakes(times: str, hold: str, field: str | None) -> None:
    text = FLEET.replace("gpus: 0.25}", f"gpus: 0.25, autoscaling: {{min_replicas: 0, {times}}}}}")
    found = problems(text.replace("state_max_age_s: 5", f"state_max_age_s: 5{hold}"))
    assert [problem.field for problem in found] == ([field] if field else [])
    assert all("raise wake_s" in problem.fix for problem in found)


def test_a_sleeper_may_take_its_time_where_another_place_answers() -> None:
    """Here a hosted target, and elsewhere a placement that does not sleep."""
    assert_mistake("min_replicas: 1,", "min_replicas: 0, start_up_s: 600,", None, "", "")
    text = FLEET.replace("min_replicas: 1,", "min_replicas: 0, start_up_s: 600,").replace(
        "model: chat, name: far", "model: embed, name: far"
    )
    assert problems(text) == []
    asleep = text.replace("gpus: 2}", "gpus: 2, autoscaling: {min_replicas: 0, start_up_s: 10}}")
    assert [problem.field for problem in problems(asleep)] == [f"{SCALING}.min_replicas"]
