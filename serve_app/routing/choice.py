"""The choice of a place for one request, and its reasons."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from clusters.spec import WORDLESS, FleetSpec
from clusters.state import FleetState
from serve_app.routing.board import Board, Permitted
from serve_app.routing.books import Books
from serve_app.routing.explanation import Asked, Considered, Explanation
from serve_app.routing.facts import Facts
from serve_app.routing.filters import Kind, Rejection
from serve_app.routing.policies import Policy, policies
from serve_app.routing.quotes import Quote
from serve_app.routing.scores import RANK, Offer, Size, Weights, offer, scores

BYTES_PER_TOKEN = 5
"""Of a whole answer."""
BYTES_PER_EVENT = 250
"""Of a streamed token."""
DEVIATIONS = 2
"""From the mean to the 95th percentile."""
NOTHING: Mapping[str, int] = {}
NOT_TRIED: Mapping[str, str] = {}


class Awaited(NamedTuple):
    """A site at which more replicas may come."""

    site: str
    waking: bool
    """There is none yet."""


class Choice(NamedTuple):
    """Holds everything that decided, so that it can be explained later. `target` is None when no place may serve."""

    facts: Facts
    rules: Policy
    permitted: Permitted
    offers: tuple[Offer, ...]
    """Of the permitted places, in their order."""
    size: Size
    scores: Sequence[float]
    cached: Mapping[str, int]
    """Tokens of the prompt, by the sites that have them in their caches."""
    failed: Mapping[str, str]
    """Why the places failed that this request has tried."""
    picked: int | None
    """Index of the target among the permitted places."""

    @property
    def target(self) -> str | None:
        """A site's or hosted target's name."""
        return None if self.picked is None else self.permitted.names[self.picked]

    @property
    def policy(self) -> str:
        return self.rules.name

    @property
    def quote(self) -> Quote | None:
        """The target's."""
        standing = None if self.picked is None else self.offers[self.picked][-1]
        return standing if isinstance(standing, Quote) else None

    @property
    def hosted(self) -> bool:
        return self.quote is not None and self.quote.supply.candidate.hosted

    @property
    def last_resort(self) -> bool:
        return self.quote is not None and self.quote.supply.candidate.last_resort

    @property
    def probe(self) -> bool:
        """Whether this request decides on the target's readmission: then tell `Health.probing` when it is sent."""
        return self.quote is not None and self.quote.supply.probe

    @property
    def load(self) -> float:
        """The target's, in requests per slot."""
        return self.quote.load if self.quote else 0.0

    @property
    def uncached_tokens(self) -> int:
        """Of the prompt, at the target."""
        return self._uncached(self.target or "")

    @property
    def beside_s(self) -> float:
        """Predicted seconds to the first token that are not prefill."""
        return self.quote.supply.round_trip_s + self.quote.queue_s if self.quote else 0.0

    @property
    def predicted_ttft_s(self) -> float:
        return self._term(self.quote, Weights(seconds=1)) if self.quote else 0.0

    @property
    def late_ttft_s(self) -> float:
        """Predicted 95th percentile."""
        return self.predicted_ttft_s + DEVIATIONS * self.quote.supply.deviation_s if self.quote else 0.0

    @property
    def usd(self) -> float:
        """Expected cost at the target."""
        return self._term(self.quote, Weights(tokens=1, egress=1)) if self.quote else 0.0

    @property
    def rejections(self) -> Mapping[str, str]:
        return {name: rejection.reason for name, rejection in self._rejections()}

    @property
    def full(self) -> bool:
        """No place takes the request now, but one may when it waits: it is full, starting, or scaled to zero."""
        return self.picked is None and any(rejection.kind is Kind.FULL for _, rejection in self._rejections())

    @property
    def awaited(self) -> Awaited | None:
        """What a held request should wait for: replicas that are on their way first, then the cheapest."""
        growing = [(rejection.growth, name) for name, rejection in self._rejections() if rejection.growth is not None]
        if not growing:
            return None
        growth, site = min(growing)
        return Awaited(site, growth.waking)

    @property
    def forbidden(self) -> bool:
        """Nothing but rules keeps every place that serves the model from this request."""
        kinds = {rejection.kind for _, rejection in self._rejections()} if self.picked is None else set()
        return Kind.FORBIDDEN in kinds and kinds <= {Kind.FORBIDDEN, Kind.ASIDE}

    def explanation(self) -> Explanation:
        """Every candidate's terms, every rejection's reason."""
        facts = self.facts
        request = Asked(
            model=facts.model,
            task=facts.task,
            stream=facts.stream,
            prompt_tokens=facts.prompt_tokens,
            expected_output_tokens=self.size.output_tokens,
            tenant=facts.tenant,
            jurisdictions=None if facts.jurisdictions is None else tuple(sorted(facts.jurisdictions)),
            hosted=facts.hosted,
            only_site=facts.only_site,
            min_context=facts.min_context,
        )
        return Explanation(
            policy=self.policy,
            target=self.target,
            full=self.full,
            forbidden=self.forbidden,
            request=request,
            considered=tuple(self._considered()),
            rejections=dict(self.rejections),
        )

    def _considered(self) -> Iterator[Considered]:
        for n, (name, score) in enumerate(zip(self.permitted.names, self.scores, strict=True)):
            quote = self.offers[n][-1]
            if score == math.inf or not isinstance(quote, Quote):
                continue
            late = Weights(late=self.rules.weights.late, target_s=self.rules.weights.target_s)
            usd_tokens = self._term(quote, Weights(tokens=1), cached=False)
            usd_uncached = self._term(quote, Weights(tokens=1))
            usd_egress = self._term(quote, Weights(egress=1))
            usd_late = self._term(quote, late)
            ttft_s = self._term(quote, Weights(seconds=1))
            yield Considered(
                name=name,
                hosted=quote.supply.candidate.hosted,
                market=quote.supply.candidate.market,
                chosen=n == self.picked,
                rank=int(score // RANK),
                score=score % RANK,
                usd_tokens=usd_tokens,
                usd_saved=usd_tokens - usd_uncached,
                usd_egress=usd_egress,
                usd_late=usd_late,
                usd_total=usd_uncached + usd_egress + usd_late,
                predicted_ttft_s=ttft_s,
                round_trip_s=quote.supply.round_trip_s,
                queue_s=quote.queue_s,
                prefill_s=ttft_s - quote.supply.round_trip_s - quote.queue_s,
                cached_tokens=self.facts.prompt_tokens - self._uncached(name),
                load=quote.load,
                slots=quote.supply.slots,
            )

    def _term(self, quote: Quote, weights: Weights, cached: bool = True) -> float:
        """The part of the score that these weights leave."""
        tokens = self._uncached(quote.supply.candidate.name) if cached else self.facts.prompt_tokens
        return scores((offer(quote, weights),), self.size, tokens)[0]

    def _uncached(self, name: str) -> int:
        cached = self.cached.get(name, 0) if name in self.permitted.sites else 0
        return max(0, self.facts.prompt_tokens - cached)

    def _rejections(self) -> Iterator[tuple[str, Rejection]]:
        yield from self.permitted.rejections.items()
        for name, (*_, standing) in zip(self.permitted.names, self.offers, strict=True):
            if name in self.failed:
                yield name, Rejection(f"failed this request: {self.failed[name]}", Kind.OUT)
            elif isinstance(standing, Rejection):
                yield name, standing


class Router:
    """One per ingress replica. Asking it changes nothing that anyone else can see."""

    def __init__(self, spec: FleetSpec, books: Books, rng: random.Random):
        self._spec = spec
        self._books = books
        self._rng = rng
        self._default = spec.routing.policy
        self._policies = policies(spec)
        self._boards = {model.name: Board(spec, model.name, books) for model in spec.models}

    def choose(self, facts: Facts, fleet: FleetState, excluded: Mapping[str, str], now: float) -> Choice:
        """`excluded` are the places that this request has tried, with what went wrong there. Raises KeyError for a
        policy that fleet.yaml doesn't have."""
        self._note_changes()
        rules = self._policies[facts.policy or self._default]
        board = self._boards.get(facts.model) or Board(self._spec, facts.model, self._books)
        permitted = board.permitted(facts)
        offers = permitted.offers(board.offers(rules, fleet, now))
        size = self._size(facts)
        rated = scores(offers, size, size.prompt_tokens)
        cached = NOTHING
        if facts.blocks or facts.session is not None:
            cached = self._books.prefixes.cached_tokens(facts.blocks, facts.session)
            for name, tokens in cached.items():
                n = permitted.sites.get(name)
                if n is not None:
                    rated[n] = scores((offers[n],), size, max(0, size.prompt_tokens - tokens))[0]
        for name in excluded:
            n = permitted.position.get(name)
            if n is not None:
                rated[n] = math.inf
        picked = rules.pick(permitted.names, rated, cached, self._rng)
        return Choice(
            facts, rules, permitted, offers, size, rated, cached, dict(excluded) if excluded else NOT_TRIED, picked
        )

    def _note_changes(self) -> None:
        leases, health = self._books.leases, self._books.health
        for name, model in leases.changed:
            if model in self._boards:
                self._boards[model].moved(name)
        leases.changed.clear()
        if health.changed:
            for name, model in health.changed:
                if model in self._boards:
                    self._boards[model].changed(name)
            health.changed.clear()

    def _size(self, facts: Facts) -> Size:
        if facts.task is None or facts.task in WORDLESS:
            return Size(facts.prompt_tokens, 0.0, 0.0)
        tokens = self._books.latency.output_tokens(facts.model)
        if facts.max_tokens is not None and facts.max_tokens < tokens:
            tokens = facts.max_tokens
        return Size(facts.prompt_tokens, tokens, tokens * (BYTES_PER_EVENT if facts.stream else BYTES_PER_TOKEN))
