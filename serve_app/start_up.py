"""Where the time goes while a replica starts."""

import logging
import time

import msgspec
import psutil
from ray.util.metrics import Gauge

logger = logging.getLogger("ray.serve")

METRIC = "rayfleet_start_up_seconds"
HEADING = "start-up of "


class StartUp(msgspec.Struct, frozen=True):
    """`began_at` is when the process did, in seconds since the epoch; the phases follow on each other, in seconds."""

    model: str
    began_at: float
    phases: dict[str, float]

    @property
    def ended_at(self) -> float:
        return self.began_at + sum(self.phases.values())


class Journal:
    """Begins with this process."""

    def __init__(self) -> None:
        self._began_at = self._latest = psutil.Process().create_time()
        self._phases: dict[str, float] = {}

    def ended(self, phase: str) -> None:
        """The phase has taken all time since the one before."""
        now = time.time()
        self._phases[phase] = max(0.0, now - self._latest)
        self._latest = now

    def publish(self, model: str) -> None:
        """In the log, which `from_log` reads, and as a metric."""
        start_up = StartUp(model, self._began_at, self._phases)
        logger.info("%s%s", HEADING, msgspec.json.encode(start_up).decode())
        gauge = Gauge(METRIC, "Seconds that a phase of the latest start of a replica took.", ("model", "phase"))
        for phase, seconds in self._phases.items():
            gauge.set(seconds, {"model": model, "phase": phase})


journal = Journal()
"""Of this replica."""


def from_log(line: str) -> StartUp | None:
    """What a line of a replica's log says of its start."""
    found = line.partition(HEADING)[2]
    return msgspec.json.decode(found, type=StartUp) if found else None
