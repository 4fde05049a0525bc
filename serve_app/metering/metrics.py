"""Every metric of the ingress, named once."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)

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
RETRIES_DENIED = Metric(
    "rayfleet_retries_denied_total", Kind.COUNTER, "attempts not made because the fleet's retry budget was used up"
)
HEDGES = Metric("rayfleet_hedges_total", Kind.COUNTER, "second attempts beside a silent first one", ("outcome",))
CONTINUATIONS = Metric(
    "rayfleet_continuations_total", Kind.COUNTER, "cut streams taken up on another site", ("mode", "outcome")
)
TOKENS = Metric(
    "rayfleet_tokens_total",
    Kind.COUNTER,
    "tokens of prompts (input), of those the ones read from a cache (cached), and of answers (output)",
    ("tenant", "model", "site", "kind"),
)
USD = Metric("rayfleet_usd_total", Kind.COUNTER, "what requests cost, in USD", ("tenant", "model", "site", "market"))
LOG_DROPPED = Metric("rayfleet_log_dropped_total", Kind.COUNTER, "records that the request log lost")

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
PER_TOKEN = Metric(
    "rayfleet_seconds_per_output_token",
    Kind.HISTOGRAM,
    "of an answer, after its first token",
    ("model", "site"),
    TOKEN_SECONDS,
)
HOLD = Metric(
    "rayfleet_hold_seconds", Kind.HISTOGRAM, "that requests waited because every site was full", buckets=SECONDS
)

HELD = Metric("rayfleet_held_requests", Kind.GAUGE, "requests that wait because every site is full")
LEASES = Metric("rayfleet_leases", Kind.GAUGE, "this ingress's requests in flight", ("model", "site"))
CONNECTIONS = Metric("rayfleet_open_connections", Kind.GAUGE, "connections of clients")
SITE_HEALTHY = Metric("rayfleet_site_healthy", Kind.GAUGE, "1 when the site's state is fresh", ("site",))
STATE_AGE = Metric("rayfleet_site_state_age_seconds", Kind.GAUGE, "since the site's state was last read", ("site",))
EJECTED = Metric(
    "rayfleet_place_ejected", Kind.GAUGE, "1 while requests keep away from an ill placement", ("model", "site")
)

METRICS = (
    REQUESTS,
    ATTEMPTS,
    FAILED_ATTEMPTS,
    RETRIES_DENIED,
    HEDGES,
    CONTINUATIONS,
    TOKENS,
    USD,
    LOG_DROPPED,
    FIRST_BYTE,
    DURATION,
    PER_TOKEN,
    HOLD,
    HELD,
    LEASES,
    CONNECTIONS,
    SITE_HEALTHY,
    STATE_AGE,
    EJECTED,
)

COPIED_BYTES = Metric(
    "rayfleet_weights_copied_bytes_total", Kind.COUNTER, "bytes of weights sent to the site's store", ("site",)
)
COPY_USD = Metric("rayfleet_weights_egress_usd_total", Kind.COUNTER, "what copying them cost, in USD", ("site",))
CORRUPT_FILES = Metric(
    "rayfleet_weights_corrupt_files_total",
    Kind.COUNTER,
    "files found wrong in the site's store, and quarantined: worth an alert",
    ("site",),
)
COPY_FAILURES = Metric(
    "rayfleet_weights_failures_total", Kind.COUNTER, "times that a release could not be brought to the site", ("site",)
)
RELEASE_SHARE = Metric(
    "rayfleet_weights_release_share",
    Kind.GAUGE,
    "how much of a release that the site should hold is in its store, 0 to 1",
    ("model", "release", "site"),
)

WEIGHTS = (COPIED_BYTES, COPY_USD, CORRUPT_FILES, COPY_FAILURES, RELEASE_SHARE)
"""Those of a site's replicator, in Ray's metrics."""

PLANNED_MIN = Metric(
    "rayfleet_planned_min_replicas",
    Kind.GAUGE,
    "the planner's bound, or else that of fleet.yaml",
    ("model", "site"),
)
PLANNED_MAX = Metric(
    "rayfleet_planned_max_replicas",
    Kind.GAUGE,
    "the planner's bound, or else that of fleet.yaml",
    ("model", "site"),
)
ORDERS_FAILED = Metric(
    "rayfleet_planner_failed_orders_total", Kind.COUNTER, "bounds that the site's agent did not take", ("site",)
)

PLANNER = (PLANNED_MIN, PLANNED_MAX, ORDERS_FAILED)
"""Those of the planner, in Ray's metrics."""
