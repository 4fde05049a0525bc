"""Requests on their way: through the router to an engine, held back, lost and sent on, until each is over."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Generic

from autoscaling.simulate.engine import Sequence
from autoscaling.simulate.journey import Journey
from autoscaling.simulate.outcome import End, Served
from autoscaling.simulate.placement import Later, Placement, Replica
from autoscaling.simulate.ports import Choice, Holding, Ingress, Place
from autoscaling.simulate.scenario import Scenario
from autoscaling.simulate.traces import Request

AT_ONCE = 64
"""Held requests that are tried again when a place may have come free, as the relay does."""
BYTES_PER_EVENT = 250
"""Of a streamed token, for egress."""
RESUME_S = 1.0
"""Between two attempts to go on with a cut answer,"""
RESUME_WITHIN_S = 30.0
"""and until none more is made."""


class Traffic(Generic[Choice]):
    """What the relay does for requests, in the same order, without bytes."""

    def __init__(
        self,
        scenario: Scenario,
        ingress: Ingress[Choice],
        holding: Holding[Journey[Choice]],
        placements: Mapping[Place, Placement],
        later: Later,
    ):
        self.out: set[str] = set()
        """Sites that don't answer."""
        self.served: dict[int, Served] = {}
        """By number in the trace."""
        self.egress_usd = {site.name: 0.0 for site in scenario.fleet.sites}
        self.held: dict[Place, int] = {}
        """Requests at the ingress, by what they wait for."""
        self.worst_held = 0
        self._scenario = scenario
        self._routing = scenario.fleet.routing
        self._ingress = ingress
        self._holding = holding
        self._placements = placements
        self._at = later
        self._journeys: dict[Sequence, Journey[Choice]] = {}
        """By what is in an engine of them."""

    def arrive(self, number: int, request: Request, now: float) -> None:
        journey: Journey[Choice] = Journey(number, request, request.output_tokens)
        placements = [each for place, each in self._placements.items() if place[1] == request.model]
        tokens = request.prompt_tokens + request.output_tokens
        if any(tokens <= placement.model.kv_tokens for placement in placements):
            self._try(journey, now)
        else:
            self._end(journey, End.REFUSED, now)

    def _try(self, journey: Journey[Choice], now: float) -> None:
        choice = self._ingress.choose(journey.request, journey.failed, now)
        if choice.target is not None:
            self._send(journey, choice, choice.target, now)
        elif journey.begun:
            self._resume_later(journey, choice.full, now)
        elif choice.full:
            self._hold(journey, choice, now)
        else:
            self._end(journey, End.FAILED, now)

    def _send(self, journey: Journey[Choice], choice: Choice, site: str, now: float) -> None:
        self._ingress.sent(choice, now)
        journey.choice, journey.site, journey.sent_at = choice, site, now
        journey.attempts += 1
        if site in self.out:
            timeout = now + self._routing.connect_timeout_s
            self._at(timeout, partial(self._fail, journey, "does not answer"))
            return
        placement = self._placements[site, journey.request.model]
        beside_s = self._scenario.round_trip_s.get(site, 0.0) + placement.model.request_s
        self._at(now + beside_s, partial(self._deliver, journey, placement))

    def _deliver(self, journey: Journey[Choice], placement: Placement, now: float) -> None:
        replica = None if placement.spec.site in self.out else placement.pick()
        if replica is None:
            self._fail(journey, "no replica answers", now)
            return
        sequence = journey.sequence(placement.spec.prefix_caching)
        if not replica.engine.fits(sequence.tokens, sequence.output_tokens):
            self._fail(journey, "its cache is too small", now)
            return
        self._journeys[sequence] = journey
        journey.replica = replica
        before = replica.engine.next_at
        replica.engine.add(sequence, now)
        if replica.engine.next_at != before:
            self._wake(placement, replica)

    def _wake(self, placement: Placement, replica: Replica) -> None:
        self._at(replica.engine.next_at, partial(self._advance, placement, replica))

    def _advance(self, placement: Placement, replica: Replica, now: float) -> None:
        if replica.engine.next_at != now:
            return  # it was woken for another time since
        first_tokens, finished = replica.engine.advance()
        for sequence in first_tokens:
            self._begun(self._journeys[sequence], sequence, now)
        for sequence in finished:
            self._finished(self._journeys.pop(sequence), now)
        if replica.engine.next_at < math.inf:
            self._wake(placement, replica)
        else:
            placement.left(replica, now)
        if finished:
            self.admit(now)

    def _begun(self, journey: Journey[Choice], sequence: Sequence, now: float) -> None:
        if journey.begun or journey.choice is None:
            return
        journey.first_at, journey.cached = now, sequence.cached
        self._ingress.began(journey.choice, now - journey.sent_at, now)

    def _finished(self, journey: Journey[Choice], now: float) -> None:
        tokens, journey.left = journey.left, 0
        choice, first_at = self._let_go(journey), journey.first_at
        if choice is not None and first_at is not None and not journey.continuations:
            self._ingress.ended(choice, tokens, now - first_at, now)
        self._end(journey, End.OK, now)

    def _let_go(self, journey: Journey[Choice]) -> Choice | None:
        choice, journey.choice, journey.replica = journey.choice, None, None
        if choice is not None:
            self._ingress.released(choice)
        return choice

    def _fail(self, journey: Journey[Choice], reason: str, now: float) -> None:
        """Its attempt; the site is to blame."""
        choice, site = self._let_go(journey), journey.site
        if choice is not None:
            self._ingress.failed(choice, reason, False, now)
        journey.failed[site] = reason
        if journey.begun:
            self._resume_later(journey, True, now)
        elif journey.attempts >= self._routing.max_attempts:
            self._end(journey, End.FAILED, now)
        else:
            self._try(journey, now)

    def lose(self, sequence: Sequence, left: int, reason: str, blame: bool, now: float) -> None:
        """An engine has gone with it, and so many tokens are still to come. A site that is to blame is avoided."""
        journey = self._journeys.pop(sequence)
        choice = self._let_go(journey)
        journey.left = left
        if blame and choice is not None:
            self._ingress.failed(choice, reason, journey.begun, now)
            journey.failed = {journey.site: reason}
        if not journey.begun:
            if journey.attempts >= self._routing.max_attempts:
                self._end(journey, End.FAILED, now)
            else:
                self._try(journey, now)
            return
        journey.continuations += 1
        journey.cut_at = now
        if journey.continuations > self._routing.continuation.max_times or not self._routing.continuation.enabled:
            self._end(journey, End.CUT, now)
        else:
            self._try(journey, now)

    def _resume_later(self, journey: Journey[Choice], full: bool, now: float) -> None:
        if now - journey.cut_at > RESUME_WITHIN_S:
            self._end(journey, End.CUT, now)
            return
        if not full:
            journey.failed.clear()  # nobody is left: those that failed earlier may be well again
        self._at(now + RESUME_S, partial(self._try, journey))

    def _end(self, journey: Journey[Choice], end: End, now: float) -> None:
        served = journey.served(end, now)
        self.served[journey.number] = served
        if served.site:
            price = self._scenario.fleet.site(served.site).egress_price
            self.egress_usd[served.site] += served.output_tokens * BYTES_PER_EVENT / 1e9 * price

    # Requests that are held

    def _hold(self, journey: Journey[Choice], choice: Choice, now: float) -> None:
        if not self._holding.join(journey.request.tenant, journey):
            self._end(journey, End.HELD_OUT, now)
            return
        journey.held_since, journey.hold_until = now, now + self._routing.hold.deadline_s
        self._wait_for(journey, choice)
        self.worst_held = max(self.worst_held, self._holding.size)
        self._at(journey.hold_until, partial(self._give_up, journey))

    def _wait_for(self, journey: Journey[Choice], choice: Choice | None) -> None:
        """As the relay's exchanges do."""
        awaited = None if choice is None else choice.awaited
        if awaited is not None and awaited.waking and journey.held_since is not None:
            journey.hold_until = max(journey.hold_until, journey.held_since + self._routing.hold.wake_s)
        site = None if awaited is None else awaited.site
        if journey.awaited is not None:
            self.held[journey.awaited, journey.request.model] -= 1
        if site is not None:
            self.held[site, journey.request.model] = self.held.get((site, journey.request.model), 0) + 1
        journey.awaited = site

    def admit(self, now: float) -> None:
        """Whose turn it is. Where one finds no place, none of its like does."""
        if not self._holding.size:
            return
        full: dict[tuple[str, str | None], Choice] = {}
        for journey in list(self._holding.in_turn(AT_ONCE)):
            like = (journey.request.model, journey.request.only_site)
            if like in full:
                self._wait_for(journey, full[like])
                continue
            choice = self._ingress.choose(journey.request, journey.failed, now)
            if choice.target is None and choice.full:
                full[like] = choice
                self._wait_for(journey, choice)
                continue
            self._unhold(journey, now)
            if choice.target is None:
                self._end(journey, End.FAILED, now)
            else:
                self._send(journey, choice, choice.target, now)

    def _unhold(self, journey: Journey[Choice], now: float) -> None:
        if journey.held_since is not None:
            journey.held_s += now - journey.held_since
            journey.held_since = None
            self._holding.leave(journey.request.tenant, journey)
            self._wait_for(journey, None)

    def _give_up(self, journey: Journey[Choice], now: float) -> None:
        if journey.held_since is None:
            return
        if now < journey.hold_until:
            self._at(journey.hold_until, partial(self._give_up, journey))
            return
        self._unhold(journey, now)
        self._end(journey, End.HELD_OUT, now)
