"""Which places requests themselves have shown to be ill, and how they come back."""

from collections.abc import Mapping
from dataclasses import dataclass

from clusters.routing import HealthSpec
from serve_app.routing.leases import Place

LEAST_SHARE = 0.1
"""Of its capacity, with which a readmitted place begins."""
PROBE_S = 30.0
"""A probe that has told nothing for so long no longer keeps others out."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one place now."""

    ejected: str | None = None
    """Why it gets no request."""
    resting: bool = False
    """It said itself when to come back: waiting may help."""
    share: float = 1.0
    """Of its capacity that it may be given."""
    probe: bool = False
    """The next request to it is its probe: tell `Health.probing`."""
    reason: str = ""
    """Why there must be a probe."""

    @property
    def illness(self) -> str | None:
        """For operators: a place is not well before its probe has told."""
        return f"the next request decides: {self.reason}" if self.probe else self.ejected


HEALTHY = Verdict()


class _Record:
    """Of one place."""

    __slots__ = (
        "broken_in_a_row",
        "earlier",
        "ejected_until",
        "ejections",
        "failures",
        "half_began",
        "heard_at",
        "in_a_row",
        "probed_at",
        "readmitted_at",
        "reason",
        "rests_for",
        "rests_until",
        "successes",
    )

    def __init__(self, now: float):
        self.in_a_row = 0
        self.broken_in_a_row = 0
        """Answers that began and did not end. To begin well is no cure of that, nor is readmission."""
        self.successes = 0
        self.failures = 0
        self.earlier = (0, 0)
        """Successes and failures of the half window before `half_began`."""
        self.half_began = now
        self.ejections = 0
        self.ejected_until: float | None = None
        self.reason = ""
        self.probed_at: float | None = None
        self.readmitted_at: float | None = None
        self.heard_at: float | None = None
        self.rests_until: float | None = None
        self.rests_for = ""

    def turn(self, now: float, half_s: float) -> None:
        """Forget what the window has left behind."""
        age = now - self.half_began
        if age < half_s:
            return
        self.earlier = (self.successes, self.failures) if age < 2 * half_s else (0, 0)
        self.successes = self.failures = 0
        self.half_began = now


class Health:
    """A state machine per place: healthy → ejected → half open, where one probe decides → ramping up → healthy."""

    def __init__(self, spec: HealthSpec, placements: Mapping[str, frozenset[str]]):
        """`placements` are the sites of each model. The bound on ejections is over these; hosted targets have none."""
        self._spec = spec
        self._placements = placements
        self._records: dict[Place, _Record] = {}
        self._ejected: set[Place] = set()
        self.changed: set[Place] = set()
        """Places on which the verdict changed since the router, which empties this, last looked."""

    def succeeded(self, site: str, model: str, now: float) -> None:
        """An answer began."""
        place = (site, model)
        record = self._record(place, now)
        record.heard_at = now
        if record.ejected_until is None:
            record.in_a_row = 0
            record.turn(now, self._spec.window_s / 2)
            record.successes += 1
        elif now >= record.ejected_until:
            self._readmit(place, record, now)

    def heard(self, site: str, model: str, now: float) -> None:
        """More of an answer came."""
        self._record((site, model), now).heard_at = now

    def ended(self, site: str, model: str) -> None:
        """One that began came to its end."""
        record = self._records.get((site, model))
        if record is not None:
            record.broken_in_a_row = 0

    def broke(self, site: str, model: str, reason: str, now: float) -> None:
        """One that began did not."""
        record = self._record((site, model), now)
        record.broken_in_a_row += 1
        record.successes -= record.successes > 0
        self._count_failure((site, model), record, reason, now)

    def failed(self, site: str, model: str, reason: str, now: float) -> None:
        """There was no answer."""
        record = self._record((site, model), now)
        record.in_a_row += 1
        self._count_failure((site, model), record, reason, now)

    def probing(self, site: str, model: str, now: float) -> None:
        """A request has gone to a place whose verdict said `probe`; until it tells, no other may."""
        self._record((site, model), now).probed_at = now
        self.changed.add((site, model))

    def rest(self, site: str, model: str, reason: str, seconds: float, now: float) -> None:
        """The place is left alone for so long. That is no illness."""
        record = self._record((site, model), now)
        record.rests_until, record.rests_for = now + min(seconds, self._spec.max_ejection_s), reason
        self.changed.add((site, model))

    def verdict(self, site: str, model: str, now: float) -> Verdict:
        record = self._records.get((site, model))
        if record is None:
            return HEALTHY
        if record.rests_until is not None and now < record.rests_until:
            return Verdict(f"rests for {record.rests_until - now:.1f} s more: {record.rests_for}", resting=True)
        if record.ejected_until is None:
            return self._ramping(record, now)
        if now < record.ejected_until:
            return Verdict(f"ejected for {record.ejected_until - now:.1f} s more: {record.reason}")
        if record.probed_at is not None and now - record.probed_at < PROBE_S:
            return Verdict(f"a probe is under way: {record.reason}")
        return Verdict(probe=True, reason=record.reason)

    def is_ejected(self, site: str, model: str) -> bool:
        """Also while a probe may go there."""
        return (site, model) in self._ejected

    def heard_at(self, site: str, model: str) -> float | None:
        """When anything of an answer last came from there."""
        record = self._records.get((site, model))
        return None if record is None else record.heard_at

    def _count_failure(self, place: Place, record: _Record, reason: str, now: float) -> None:
        if record.ejected_until is None:
            record.turn(now, self._spec.window_s / 2)
            record.failures += 1
            ill = self._illness(record, reason)
            if ill is not None and self._may_eject(place):
                self._eject(place, record, ill, now)
        elif now >= record.ejected_until:
            self._eject(place, record, f"its probe failed: {reason}", now)

    def _illness(self, record: _Record, reason: str) -> str | None:
        in_a_row = max(record.in_a_row, record.broken_in_a_row)
        if in_a_row >= self._spec.consecutive_errors:
            return f"{in_a_row} failures in a row, the last: {reason}"
        failures = record.failures + record.earlier[1]
        total = failures + record.successes + record.earlier[0]
        if total >= self._spec.min_samples and total - failures < self._spec.success_rate * total:
            return f"{failures} of {total} requests failed, the last: {reason}"
        return None

    def _may_eject(self, place: Place) -> bool:
        site, model = place
        sites = self._placements.get(model, frozenset())
        if site not in sites:
            return True
        most = min(int(self._spec.max_ejected_share * len(sites)), len(sites) - 1)
        return sum((other, model) in self._ejected for other in sites) < most

    def _eject(self, place: Place, record: _Record, reason: str, now: float) -> None:
        if record.readmitted_at is not None and now - record.readmitted_at > self._spec.max_ejection_s:
            record.ejections = 0
        doubled = self._spec.ejection_s * 2.0 ** min(record.ejections, 32)
        record.ejected_until = now + min(doubled, self._spec.max_ejection_s)
        record.ejections += 1
        record.reason = reason
        record.probed_at = record.readmitted_at = None
        self._ejected.add(place)
        self.changed.add(place)

    def _readmit(self, place: Place, record: _Record, now: float) -> None:
        record.ejected_until = record.probed_at = None
        record.readmitted_at = now
        record.in_a_row = record.successes = record.failures = 0
        record.earlier = (0, 0)
        record.half_began = now
        self._ejected.discard(place)
        self.changed.add(place)

    def _ramping(self, record: _Record, now: float) -> Verdict:
        if record.readmitted_at is None or now - record.readmitted_at >= self._spec.ramp_s:
            return HEALTHY
        return Verdict(share=max(LEAST_SHARE, (now - record.readmitted_at) / self._spec.ramp_s))

    def _record(self, place: Place, now: float) -> _Record:
        record = self._records.get(place)
        if record is None:
            record = self._records[place] = _Record(now)
        return record
