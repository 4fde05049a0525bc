"""Dollars of a finished request."""

from dataclasses import dataclass

from clusters.packing import usd_per_node_hour
from clusters.spec import HostedModelSpec, PlacementSpec, SiteSpec

S_PER_HOUR = 3600
BYTES_PER_GB = 1e9


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a place takes for a model, in USD."""

    per_slot_second: float = 0.0
    """A slot is one of the sequences that a replica runs at once."""
    per_input_token: float = 0.0
    per_output_token: float = 0.0
    per_byte: float = 0.0
    """Of the answer: egress."""


def site_tariff(site: SiteSpec, placement: PlacementSpec) -> Tariff:
    """The replica's share of its node, divided among its slots, and the site's egress."""
    pool = site.pool(placement.pool)
    usd_per_hour = usd_per_node_hour(site, placement)
    share = placement.gpus / pool.gpus if pool.gpus else placement.cpus / pool.cpus
    return Tariff(
        per_slot_second=usd_per_hour * share / placement.capacity / S_PER_HOUR,
        per_byte=site.egress_price / BYTES_PER_GB,
    )


def hosted_tariff(model: HostedModelSpec) -> Tariff:
    """A hosted target's list price."""
    return Tariff(
        per_input_token=model.usd_per_million_input / 1e6, per_output_token=model.usd_per_million_output / 1e6
    )


def usd(tariff: Tariff, slot_s: float, tokens_in: int, tokens_out: int, answer_bytes: int) -> float:
    """`slot_s`: seconds for which a slot was held, or seconds of several slots together."""
    return (
        slot_s * tariff.per_slot_second
        + tokens_in * tariff.per_input_token
        + tokens_out * tariff.per_output_token
        + answer_bytes * tariff.per_byte
    )
