"""What the router remembers of its own doing: the only mutable things, owned by one event loop."""

from dataclasses import dataclass
from typing import Self

from clusters.spec import FleetSpec
from serve_app.routing.health import Health
from serve_app.routing.latency import Latency
from serve_app.routing.leases import Leases
from serve_app.routing.prefixes import Prefixes


@dataclass(frozen=True)
class Books:
    """One of each per ingress replica, and one Router that reads them."""

    leases: Leases
    latency: Latency
    health: Health
    prefixes: Prefixes

    @classmethod
    def of(cls, spec: FleetSpec) -> Self:
        """New and empty."""
        sites = {
            model.name: frozenset(placement.site for placement in spec.placements if placement.model == model.name)
            for model in spec.models
        }
        return cls(Leases(), Latency(), Health(spec.routing.health, sites), Prefixes(spec.routing.prefix_blocks))
