"""A step up, the way back down, sleep and waking, as a client and an operator see them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.scaling.load import Tally, first_token_s, streams
from bench.scaling.stage import MODEL, SITE, decisions
from clusters.launch.local import LocalFleet
from serve_app.cli.status import read_sites

FEW, MANY = 1, 16
"""Streams at once."""
STEADY_S = 15.0
WITHIN_S = 600.0
LOOK_S = 0.1


@dataclass
class Figures:
    """Seconds; None where it did not happen within 10 minutes."""

    up_decision_s: float | None = None
    """From the first of the many streams to the autoscaler's word,"""
    up_replica_s: float | None = None
    """and to one more replica that answers."""
    most_replicas: int = 0
    down_s: float | None = None
    """From the last of the many streams to one replica."""
    asleep_s: float | None = None
    """From the last stream to none."""
    wake_decision_s: float | None = None
    """From the next request to the autoscaler's word,"""
    wake_token_s: float | None = None
    """and to its first token."""
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)


def measure(local: LocalFleet, say: Callable[[str], None]) -> Figures:
    figures, tally, began = Figures(), Tally(), time.time()
    load = (local.endpoint, local.api_key, MODEL)
    say(f"{FEW} stream")
    with streams(*load, FEW, tally):
        _awake(local)
        time.sleep(STEADY_S)
        say(f"{MANY} streams")
        with streams(*load, MANY - FEW, tally):
            stepped = time.time()
            figures.up_replica_s = _until(lambda: _replicas(local) > 1)
            _until(lambda: _replicas(local) == _target(local))
            figures.most_replicas = _replicas(local)
            time.sleep(STEADY_S)
        say(f"{FEW} stream again")
        figures.down_s = _until(lambda: _replicas(local) == 1)
    figures.up_decision_s = _first_after(local, stepped, ": up ")
    say("no stream")
    figures.asleep_s = _until(lambda: _placement(local)["readiness"] == "asleep")
    say("one request")
    asked = time.time()
    figures.wake_token_s = first_token_s(*load)
    figures.wake_decision_s = _first_after(local, asked, ": up 0 ")
    figures.answers, figures.failures = tally.answers, tally.failures
    figures.decisions = [f"{at - began:6.1f} s  {words}" for at, words in decisions(local)]
    return figures


def _awake(local: LocalFleet) -> None:
    _until(lambda: _replicas(local) == 1)


def _first_after(local: LocalFleet, moment: float, words: str) -> float | None:
    return next((at - moment for at, said in decisions(local) if at >= moment and words in said), None)


def _until(happened: Callable[[], bool]) -> float | None:
    began = time.monotonic()
    while not happened():
        if time.monotonic() - began > WITHIN_S:
            return None
        time.sleep(LOOK_S)
    return time.monotonic() - began


def _replicas(local: LocalFleet) -> int:
    return int(_placement(local)["replicas"])


def _target(local: LocalFleet) -> int:
    return int(_placement(local)["target_replicas"])


def _placement(local: LocalFleet) -> dict[str, Any]:
    site = next(site for site in read_sites(local.endpoint, local.api_key) if site["site"] == SITE)
    return next(each for each in site["placements"] if each["model"] == MODEL)
