"""What clouds ask for bytes that leave: list prices of 2026-11, in USD per GB."""

from typing import Protocol

from clusters.spec import Provider

AS_OF = "2026-11"
AWS_BETWEEN_REGIONS = {"ap": 0.09, "sa": 0.138, "af": 0.147, "me": 0.1105}
"""By the first part of the region that sends; anywhere else it is the lowest."""
AWS_LOWEST = 0.02
GCP_CONTINENTS = {"northamerica": "us", "us": "us", "europe": "europe", "asia": "asia", "southamerica": "southamerica"}
GCP_WITHIN = {"us": 0.02, "europe": 0.02, "asia": 0.08, "southamerica": 0.14}
GCP_ACROSS = {frozenset(("us", "europe")): 0.05}
GCP_FAR = 0.14
"""Between continents that are not named above, at most."""


class Place(Protocol):
    """A site, as far as prices go; `egress_price` in USD per GB to the internet."""

    @property
    def name(self) -> str: ...
    @property
    def provider(self) -> Provider: ...
    @property
    def region(self) -> str: ...
    @property
    def egress_price(self) -> float: ...


def usd_per_gb(source: Place, target: Place | None) -> float:
    """From one site to another; None stands for the internet."""
    if target is None or source.provider is not target.provider:
        return source.egress_price
    if source.region == target.region or source.provider is Provider.ONPREM:
        return 0.0
    return _aws(source.region) if source.provider is Provider.AWS else _gcp(source.region, target.region)


def relayed_usd_per_gb(source: Place, target: Place, here: Place | None, read_back: float) -> float:
    """The same by way of a process elsewhere, on the internet or at another site, that reads a share of it back."""
    if here is not None and here.name == target.name:
        return usd_per_gb(source, target)
    to_target = usd_per_gb(here, target) if here is not None else 0.0
    return usd_per_gb(source, here) + to_target + read_back * usd_per_gb(target, here)


def _aws(source: str) -> float:
    return AWS_BETWEEN_REGIONS.get(source.partition("-")[0], AWS_LOWEST)


def _gcp(source: str, target: str) -> float:
    one, other = (GCP_CONTINENTS.get(region.partition("-")[0], region) for region in (source, target))
    if one == other:
        return GCP_WITHIN.get(one, GCP_FAR)
    return GCP_ACROSS.get(frozenset((one, other)), GCP_FAR)
