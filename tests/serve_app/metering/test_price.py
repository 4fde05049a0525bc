"""What a request costs, by what it used and where."""

import pytest

from clusters.spec import HostedModelSpec, PlacementSpec, SiteSpec
from serve_app.metering.price import Tariff, hosted_tariff, site_tariff, usd

SITE = SiteSpec.model_validate(
    {
        "name": "east",
        "provider": "aws",
        "region": "us-east-1",
        "jurisdiction": "us",
        "endpoint": "https://east.example.com",
        "store": {"url": "s3://east"},
        "machines": {"head": "m7i.xlarge"},
        "pools": [
            {"name": "l4", "instance_type": "g6", "accelerator": "L4", "gpus": 4, "cpus": 32, "usd_per_hour": 7.2},
            {"name": "plain", "instance_type": "c7i", "cpus": 8, "usd_per_hour": 3.6},
        ],
    }
)


def placement(pool: str, **fields: float) -> PlacementSpec:
    return PlacementSpec.model_validate({"model": "chat", "site": "east", "pool": pool, **fields})


def test_a_slot_costs_its_share_of_the_node() -> None:
    # Half of one card of four: an eighth of 7.20 an hour, among 64 slots.
    tariff = site_tariff(SITE, placement("l4", gpus=0.5))
    assert usd(tariff, 64 * 3600, 0, 0, 0) == pytest.approx(0.9)


def test_on_nodes_without_gpus_the_share_is_of_cpus() -> None:
    tariff = site_tariff(SITE, placement("plain", gpus=0, cpus=2))
    assert usd(tariff, 64 * 3600, 0, 0, 0) == pytest.approx(0.9)


def test_what_leaves_a_site_costs_its_egress() -> None:
    dear = SITE.model_copy(update={"egress_usd_per_gb": 1.5})
    assert usd(site_tariff(SITE, placement("l4")), 0, 0, 0, 10**9) == pytest.approx(0.09)
    assert usd(site_tariff(dear, placement("l4")), 0, 0, 0, 10**9) == pytest.approx(1.5)


def test_a_hosted_target_takes_its_price_per_token_and_nothing_for_time() -> None:
    spec = HostedModelSpec(model="chat", name="x", usd_per_million_input=2, usd_per_million_output=10)
    assert usd(hosted_tariff(spec), 1e6, 500_000, 100_000, 10**9) == pytest.approx(2.0)


def test_nothing_costs_nothing() -> None:
    assert usd(Tariff(), 1e6, 10**6, 10**6, 10**9) == 0
