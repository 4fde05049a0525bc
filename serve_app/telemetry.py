"""Every metric of the ingress, named once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

REQUESTS = Metric(
    "rayfleet_requests_total",
    Kind.COUNTER,
    "requests for a known model, by the site that answered or was tried last, and what became of them",
    ("model", "site", "outcome"),
)
ATTEMPTS = Metric("rayfleet_attempts_total", Kind.COUNTER, "sites tried for requests", ("model",))
FAILED_ATTEMPTS = Metric(
    "rayfleet_failed_attempts_total", Kind.COUNTER, "attempts that went elsewhere, and why", ("site", "reason")
)
FIRST_BYTE = Metric(
    "rayfleet_first_byte_seconds",
    Kind.HISTOGRAM,
    "from the request to the first byte of its answer's body, failed attempts included",
    ("model", "site"),
    SECONDS,
)
DURATION = Metric(
    "rayfleet_request_seconds", Kind.HISTOGRAM, "from the request to the end of its answer", ("model", "site"), SECONDS
)
LEASES = Metric("rayfleet_leases", Kind.GAUGE, "this ingress's requests in flight", ("model", "site"))
SITE_HEALTHY = Metric("rayfleet_site_healthy", Kind.GAUGE, "1 when the site's state is fresh", ("site",))
STATE_AGE = Metric("rayfleet_site_state_age_seconds", Kind.GAUGE, "since the site's state was last read", ("site",))

METRICS = (REQUESTS, ATTEMPTS, FAILED_ATTEMPTS, FIRST_BYTE, DURATION, LEASES, SITE_HEALTHY, STATE_AGE)


class Outcome(StrEnum):
    """What became of a request."""

    OK = "ok"
    REFUSED = "refused"
    """The engine said that the client made a mistake."""
    CUT = "cut"
    CLIENT_LEFT = "client_left"
    FAILED = "failed"
    """No site answered, or none could be asked."""


@dataclass(slots=True)
class Record:
    """One request, filled in while it is served. Times are monotonic seconds."""

    model: str
    started: float
    first_byte: float | None = None
    site: str = ""
    attempts: int = 0
    outcome: Outcome = Outcome.FAILED


Recorder = Callable[[float, Sequence[str]], None]
"""(value, label values): adds to a counter, sets a gauge, observes in a histogram."""


class Backend(Protocol):
    """Where metrics go."""

    def register(self, metric: Metric) -> Recorder: ...


class Telemetry:
    """Records to every backend."""

    def __init__(self, *backends: Backend):
        self._recorders = {metric.name: [backend.register(metric) for backend in backends] for metric in METRICS}

    def answered(self, record: Record, now: float) -> None:
        self._record(REQUESTS, 1, record.model, record.site, record.outcome)
        self._record(ATTEMPTS, record.attempts, record.model)
        self._record(DURATION, now - record.started, record.model, record.site)
        if record.first_byte is not None:
            self._record(FIRST_BYTE, record.first_byte - record.started, record.model, record.site)

    def attempt_failed(self, site: str, reason: str) -> None:
        self._record(FAILED_ATTEMPTS, 1, site, reason)

    def leases(self, model: str, site: str, count: int) -> None:
        self._record(LEASES, count, model, site)

    def site(self, site: str, healthy: bool, age_s: float | None) -> None:
        self._record(SITE_HEALTHY, healthy, site)
        if age_s is not None:
            self._record(STATE_AGE, age_s, site)

    def _record(self, metric: Metric, value: float, *labels: str) -> None:
        for record in self._recorders[metric.name]:
            record(value, labels)


class Prometheus:
    """Backend for our own `/metrics`: of this replica only."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

    def register(self, metric: Metric) -> Recorder:
        match metric.kind:
            case Kind.COUNTER:
                counter = Counter(metric.name, metric.help, metric.labels, registry=self._registry)
                return lambda value, labels: counter.labels(*labels).inc(value)
            case Kind.GAUGE:
                gauge = Gauge(metric.name, metric.help, metric.labels, registry=self._registry)
                return lambda value, labels: gauge.labels(*labels).set(value)
            case Kind.HISTOGRAM:
                histogram = Histogram(
                    metric.name, metric.help, metric.labels, registry=self._registry, buckets=metric.buckets
                )
                return lambda value, labels: histogram.labels(*labels).observe(value)

    def render(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)
