"""What the ingress tells of itself in numbers."""

from serve_app.metering import metrics
from serve_app.metering.export import Backend, Export
from serve_app.metering.record import Record
from serve_app.metering.sums import Sums

MAX_FAILURES = 1000
"""Pairs of site and reason that are told apart; beyond it, reasons are "other"."""


class Telemetry:
    """Every call only adds to plain numbers, `sums`; `flush` hands them to the backends. For one thread."""

    def __init__(self, *backends: Backend):
        self.sums = Sums(metrics.METRICS)
        self._exports = [Export(self.sums, backend) for backend in backends]
        numbers, buckets = self.sums.numbers, self.sums.buckets
        self._requests = numbers(metrics.REQUESTS)
        self._attempts = numbers(metrics.ATTEMPTS)
        self._tokens = numbers(metrics.TOKENS)
        self._usd = numbers(metrics.USD)
        self._first_byte = buckets(metrics.FIRST_BYTE)
        self._duration = buckets(metrics.DURATION)
        self._per_token = buckets(metrics.PER_TOKEN)

    def answered(self, record: Record) -> None:
        """Once per request, whatever became of it."""
        model, site, tenant = record.model, record.site, record.tenant
        self._requests[model, site, record.outcome] += 1
        self._attempts[(model,)] += record.attempts
        self._duration[model, site].observe(record.duration_s)
        if record.ttft_s is not None:
            self._first_byte[model, site].observe(record.ttft_s)
        if record.tpot_s is not None:
            self._per_token[model, site].observe(record.tpot_s)
        if record.tokens_in or record.tokens_out:
            self._tokens[tenant, model, site, "input"] += record.tokens_in
            self._tokens[tenant, model, site, "output"] += record.tokens_out
            self._tokens[tenant, model, site, "cached"] += record.tokens_cached
        if record.usd:
            self._usd[tenant, model, site, record.market] += record.usd

    def attempt_failed(self, site: str, reason: str) -> None:
        failed = self.sums.numbers(metrics.FAILED_ATTEMPTS)
        if len(failed) >= MAX_FAILURES and (site, reason) not in failed:
            reason = "other"
        failed[site, reason] += 1

    def retry_denied(self) -> None:
        self.sums.numbers(metrics.RETRIES_DENIED)[()] += 1

    def hedged(self, outcome: str) -> None:
        self.sums.numbers(metrics.HEDGES)[(outcome,)] += 1

    def continued(self, mode: str, outcome: str) -> None:
        self.sums.numbers(metrics.CONTINUATIONS)[mode, outcome] += 1

    def held(self, seconds: float) -> None:
        """A request no longer waits for a free site."""
        self.sums.buckets(metrics.HOLD)[()].observe(seconds)

    def log_dropped(self, records: int) -> None:
        self.sums.numbers(metrics.LOG_DROPPED)[()] += records

    def set_held(self, requests: int) -> None:
        self.sums.numbers(metrics.HELD)[()] = requests

    def set_connections(self, count: int) -> None:
        self.sums.numbers(metrics.CONNECTIONS)[()] = count

    def set_leases(self, model: str, site: str, count: int) -> None:
        self.sums.numbers(metrics.LEASES)[model, site] = count

    def set_ejected(self, model: str, site: str, ejected: bool) -> None:
        self.sums.numbers(metrics.EJECTED)[model, site] = ejected

    def set_site(self, site: str, healthy: bool, age_s: float | None) -> None:
        """`age_s` is None as long as the site's state was never read."""
        self.sums.numbers(metrics.SITE_HEALTHY)[(site,)] = healthy
        if age_s is not None:
            self.sums.numbers(metrics.STATE_AGE)[(site,)] = age_s

    def flush(self) -> None:
        """To be called every second."""
        for export in self._exports:
            export.flush()
