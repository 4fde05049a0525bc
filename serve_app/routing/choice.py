"""The choice of a site for one request, and its reasons."""

from collections.abc import Mapping
from dataclasses import dataclass

from clusters.state import FleetState
from serve_app.routing.candidate import Candidate
from serve_app.routing.facts import Facts
from serve_app.routing.filters import Filter
from serve_app.routing.leases import Leases
from serve_app.routing.pickers import Picker
from serve_app.routing.scorers import Scorer


@dataclass(frozen=True, slots=True)
class Choice:
    """Every site is in `scores` or in `rejections`; `site` is None when every one was rejected."""

    site: str | None
    scores: Mapping[str, float]
    rejections: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Chain:
    """Filter, score, pick."""

    filters: tuple[Filter, ...]
    scorer: Scorer
    picker: Picker

    def choose(self, facts: Facts, fleet: FleetState, leases: Leases, failed: Mapping[str, str], now: float) -> Choice:
        """`failed` are the sites that this request has tried, with what went wrong there."""
        scores: dict[str, float] = {}
        rejections: dict[str, str] = {}
        for candidate in _candidates(facts, fleet, leases, failed):
            reason = self._rejection(facts, candidate, now)
            if reason is None:
                scores[candidate.site] = self.scorer(facts, candidate)
            else:
                rejections[candidate.site] = reason
        return Choice(self.picker(scores) if scores else None, scores, rejections)

    def _rejection(self, facts: Facts, candidate: Candidate, now: float) -> str | None:
        for reject in self.filters:
            reason = reject(facts, candidate, now)
            if reason is not None:
                return reason
        return None


def _candidates(facts: Facts, fleet: FleetState, leases: Leases, failed: Mapping[str, str]) -> list[Candidate]:
    return [
        Candidate(
            site=site,
            observation=observation,
            placement=observation.state.placement(facts.model) if observation.state else None,
            in_flight=leases.in_flight(site, facts.model),
            in_flight_since=leases.since(site, facts.model, observation.read_at or 0),
            failed=failed.get(site),
        )
        for site, observation in fleet.observations.items()
    ]
