"""Mistakes in what the planner is told."""

import pytest

from tests.clusters.mistakes import assert_mistake

WEIGHTS = "weights: {home: home}"

# Settings of the planner, field, part of the message, part of the fix.
MISTAKES = [
    ("{enabled: false}", None, "", ""),
    ("{interval_s: 10}", None, "", ""),
    ("{interval_s: 11}", "planner.lifetime_s", "30 s are less than 3 intervals of 11 s", "at least 33"),
    ("{lifetime_s: 14}", "planner.lifetime_s", "14 s are less than 3 intervals of 5 s", "a shorter interval_s"),
    ("{lifetime_s: 601}", "planner.lifetime_s", "601 is out of range", "at most 600"),
    ("{interval_s: 0}", "planner.interval_s", "0 is out of range", "more than 0"),
    ("{silent_s: .nan}", "planner.silent_s", "not a number", "ordinary number"),
    ("{intervall_s: 5}", "planner.intervall_s", "unknown field", "did you mean `interval_s`?"),
]


@pytest.mark.parametrize(("planner", "field", "message", "fix"), MISTAKES)
def test_one_mistake(planner: str, field: str | None, message: str, fix: str) -> None:
    assert_mistake(WEIGHTS, f"{WEIGHTS}\nplanner: {planner}", field, message, fix)
