"""Whom a pool's nodes ask, and what of it is refused before anything starts."""

import pytest

from clusters.spec import SiteSpec
from tests.clusters.mistakes import assert_mistake

L4, A100, L40S = "sites[0] (east).pools[0] (l4)", "sites[1] (west).pools[0] (a100)", "sites[2] (home).pools[0] (l40s)"
ON_AWS, ON_GCP, ON_OWN = "usd_per_hour: 0.6,", "usd_per_hour: 20}", "usd_per_hour: 0.5}"

MISTAKES = [
    (ON_AWS, f"{ON_AWS} notices: aws,", f"{L4}.notices", "only spot nodes are taken back", "write `market: spot`"),
    (ON_AWS, f"{ON_AWS} market: spot, notices: gcp,", f"{L4}.notices", "no metadata server of gcp", "remove it"),
    (ON_AWS, f"{ON_AWS} market: spot, notices: ec2,", f"{L4}.notices", "not allowed", "write aws or gcp or azure"),
    (ON_GCP, f"{ON_GCP[:-1]}, market: spot, notices: azure}}", f"{A100}.notices", "server of azure", "remove it"),
    (ON_OWN, f"{ON_OWN[:-1]}, market: spot}}", f"{L40S}.notices", "nobody knows whom to ask", "`notices: azure`"),
    (ON_OWN, f"{ON_OWN[:-1]}, market: spot, notices: azure}}", None, "", ""),
    (ON_OWN, f"{ON_OWN[:-1]}, market: spot, notices: none}}", None, "", ""),
    (ON_OWN, f"{ON_OWN[:-1]}, notices: none}}", None, "", ""),
    (ON_AWS, f"{ON_AWS} market: spot,", None, "", ""),
    (ON_AWS, f"{ON_AWS} market: spot, notices: aws,", None, "", ""),
    (ON_AWS, f"{ON_AWS} market: spot, notices: none,", None, "", ""),
]


@pytest.mark.parametrize(("old", "new", "field", "message", "fix"), MISTAKES)
def test_notices_that_make_no_sense_are_refused(old: str, new: str, field: str | None, message: str, fix: str) -> None:
    assert_mistake(old, new, field, message, fix)


@pytest.mark.parametrize(
    ("provider", "market", "notices", "source"),
    [
        ("aws", "spot", None, "aws"),
        ("gcp", "spot", None, "gcp"),
        ("gcp", "spot", "none", "none"),
        ("onprem", "spot", "azure", "azure"),
        ("onprem", "spot", None, "none"),
        ("aws", "on_demand", None, "none"),
        ("onprem", "reserved", None, "none"),
    ],
)
def test_spot_nodes_ask_their_own_provider(provider: str, market: str, notices: str | None, source: str) -> None:
    pool = {"name": "p", "instance_type": "x", "usd_per_hour": 1, "market": market, "notices": notices}
    site = SiteSpec.model_validate(
        {
            "name": "site",
            "provider": provider,
            "region": "r",
            "jurisdiction": "eu",
            "endpoint": "https://site.example.com",
            "store": {"url": "s3://bucket"},
            "machines": {"head": "x"},
            "pools": [pool],
        }
    )
    assert site.notice_source(site.pool("p")) == source
