"""The ingress inside a simulation: the router and its books as they are, told by a clock that jumps."""

import random
from collections.abc import Mapping

from autoscaling.simulate.journey import Journey
from autoscaling.simulate.outcome import Outcome
from autoscaling.simulate.ports import Controller
from autoscaling.simulate.scenario import Scenario
from autoscaling.simulate.simulation import Progress, Simulation
from autoscaling.simulate.traces import Request
from clusters.spec import FleetSpec, Task
from clusters.state import FleetState, Observation
from serve_app.relay.holding import Holding
from serve_app.routing.books import Books
from serve_app.routing.choice import Choice, Router
from serve_app.routing.facts import Facts
from serve_app.routing.prefixes import TOKENS_PER_BLOCK

MOST_BLOCKS = 128
"""Of a prompt, as `prefixes.hash_blocks` counts them."""


class SimulatedIngress:
    """Tells the books what the relay tells them, at the same moments."""

    def __init__(self, spec: FleetSpec, rng: random.Random):
        self._books = Books.of(spec)
        self._router = Router(spec, self._books, rng)
        self._fleet = FleetState(observations={site.name: Observation(site=site.name) for site in spec.sites})
        self._policies = {model.name: model.policy for model in spec.models}
        self._allowed = {
            model.name: frozenset(model.jurisdictions) if model.jurisdictions else None for model in spec.models
        }
        self._tasks = {model.name: Task.CHAT if Task.CHAT in model.tasks else Task.COMPLETIONS for model in spec.models}

    def observe(self, observation: Observation) -> None:
        self._fleet = FleetState.model_construct(
            observations={**self._fleet.observations, observation.site: observation}
        )

    def choose(self, request: Request, failed: Mapping[str, str], now: float) -> Choice:
        return self._router.choose(self._facts(request), self._fleet, failed, now)

    def sent(self, choice: Choice, now: float) -> None:
        site, model = choice.target or "", choice.facts.model
        self._books.leases.take(site, model)
        if choice.probe:
            self._books.health.probing(site, model, now)

    def released(self, choice: Choice) -> None:
        self._books.leases.release(choice.target or "", choice.facts.model)

    def began(self, choice: Choice, seconds: float, now: float) -> None:
        site, facts = choice.target or "", choice.facts
        self._books.health.succeeded(site, facts.model, now)
        self._books.prefixes.learn(facts.blocks, site, None, facts.prompt_tokens)
        if self._books.latency.wants(site, facts.model, now):
            self._books.latency.first_token(
                site, facts.model, seconds, choice.uncached_tokens, choice.load, now, choice.beside_s
            )

    def ended(self, choice: Choice, output_tokens: int, seconds_after_first: float, now: float) -> None:
        site, model = choice.target or "", choice.facts.model
        self._books.health.ended(site, model)
        if output_tokens > 1:
            self._books.latency.finished(site, model, output_tokens, seconds_after_first, now)

    def failed(self, choice: Choice, reason: str, begun: bool, now: float) -> None:
        tell = self._books.health.broke if begun else self._books.health.failed
        tell(choice.target or "", choice.facts.model, reason, now)

    def _facts(self, request: Request) -> Facts:
        return Facts(
            model=request.model,
            task=self._tasks[request.model],
            stream=True,
            body_bytes=4 * request.prompt_tokens,
            only_site=request.only_site,
            prompt_tokens=request.prompt_tokens,
            blocks=_blocks(request),
            tenant=request.tenant,
            jurisdictions=self._allowed[request.model],
            policy=self._policies[request.model],
        )


def _blocks(request: Request) -> tuple[int, ...]:
    """The trace's blocks in pieces of the size that the router's index counts in."""
    pieces = request.block_tokens // TOKENS_PER_BLOCK
    return tuple(block * pieces + piece for block in request.blocks for piece in range(pieces))[:MOST_BLOCKS]


def simulate(scenario: Scenario, controller: Controller, progress: Progress = lambda _: None) -> Outcome:
    """The scenario with rayfleet's own ingress in front."""
    fleet = scenario.fleet
    ingress = SimulatedIngress(fleet, random.Random(scenario.seed))
    holding: Holding[Journey[Choice]] = Holding(fleet.routing.hold)
    return Simulation(scenario, ingress, holding, controller, progress).run()
