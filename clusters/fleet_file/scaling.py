"""Times of scaling that don't go together: each could be, and with the other a placement runs wild, or fails."""

from collections.abc import Iterator

from clusters.fleet_file.document import Mistake
from clusters.fleet_file.draft import Part

ORDERS_PER_LIFETIME = 3
LEAST_SIGNAL_AGE_S = 2.0
"""Replicas tell their load every 0.5 to 1 s, and a word may be late."""


def untimely(placement: Part) -> Iterator[Mistake]:
    """What a placement's autoscaling says of itself."""
    scaling = placement["autoscaling"]
    start_s, deadline_s = scaling["start_up_s"], scaling["start_up_deadline_s"]
    if None not in (start_s, deadline_s) and deadline_s <= start_s:
        message = f"with start_up_s {start_s:g} every start would be late, and its replica asked for twice"
        yield scaling.mistake(
            "start_up_deadline_s", message, f"use more than {start_s:g}, rather several times as much"
        )
    panic_s, window_s = scaling["panic_window_s"], scaling["window_s"]
    if scaling.gives("panic_window_s") and None not in (panic_s, window_s) and panic_s > window_s:
        message = f"{panic_s:g} s are more than window_s {window_s:g}, so a burst is seen no sooner"
        yield scaling.mistake("panic_window_s", message, "lower panic_window_s or raise window_s")
    age_s = scaling["signal_max_age_s"]
    if age_s is not None and age_s < LEAST_SIGNAL_AGE_S:
        message = f"{age_s:g} s: replicas tell their load once a second, so mostly none would be known"
        yield scaling.mistake("signal_max_age_s", message, f"use at least {LEAST_SIGNAL_AGE_S:g}")


def unwakeable(fleet: Part) -> Iterator[Mistake]:
    """Placements that sleep, of models that nobody else serves: requests would be refused before one is awake."""
    wake_s = fleet["routing"]["hold"]["wake_s"]
    elsewhere = {offer["model"] for target in fleet["hosted"] for offer in target["models"]}
    awake = {placement["model"] for placement in fleet["placements"] if placement["autoscaling"]["min_replicas"] != 0}
    for placement in fleet["placements"]:
        start_s = placement["autoscaling"]["start_up_s"]
        if None in (wake_s, start_s, placement["model"]) or start_s <= wake_s:
            continue
        if not {placement["model"], None} & (elsewhere | awake):
            message = f"a sleeper wakes in start_up_s {start_s:g}, and requests wait routing.hold.wake_s {wake_s:g}"
            fix = f"raise wake_s to {start_s:g} or more, or keep a replica (`min_replicas: 1`)"
            yield placement["autoscaling"].mistake("min_replicas", message, fix)


def forgetful(planner: Part, routing: Part) -> Iterator[Mistake]:
    """A planner that lets go of what it did, or of who is there, because of one message that is lost."""
    interval_s, lifetime_s, silent_s = planner["interval_s"], planner["lifetime_s"], planner["silent_s"]
    if None not in (interval_s, lifetime_s) and lifetime_s < ORDERS_PER_LIFETIME * interval_s:
        message = f"{lifetime_s:g} s are less than {ORDERS_PER_LIFETIME} intervals of {interval_s:g} s"
        fix = f"at least {ORDERS_PER_LIFETIME * interval_s:g}, or a shorter interval_s"
        yield planner.mistake("lifetime_s", message, fix)
    for name, least_s in (("interval_s", interval_s), ("routing.state_max_age_s", routing["state_max_age_s"])):
        if None not in (silent_s, least_s) and silent_s < least_s:
            message = f"{silent_s:g} s are less than {name} {least_s:g}: one look that fails would forget a site's load"
            yield planner.mistake("silent_s", message, f"use at least {least_s:g}, rather several times as much")
            return
