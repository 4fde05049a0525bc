"""A placement that may sleep goes to sleep, and a request wakes it."""

import time
from typing import Any

import yaml

from clusters.launch.local import deploy
from serve_app.cli.status import read_sites
from tests.e2e.conftest import Fleet
from tests.e2e.waiting import wait_for

MODEL, SITE = "demo-embed", "onprem-zurich"
"""Nothing else serves it."""
SLEEPY = {"min_replicas": 0, "scale_to_zero_delay_s": 3, "scale_down_delay_s": 3}


def test_a_placement_goes_to_sleep_and_a_request_wakes_it(fleet: Fleet) -> None:
    config = fleet.local.config(SITE)
    written = config.read_text()
    changed = yaml.safe_load(written)
    application = next(each for each in changed["applications"] if each["name"] == MODEL)
    application["args"]["placement"]["autoscaling"] |= SLEEPY
    try:
        config.write_text(yaml.safe_dump(changed))
        deploy(fleet.local, SITE)
        assert wait_for(lambda: _placement(fleet)["readiness"] == "asleep", 300), _placement(fleet)
        began = time.monotonic()
        answer = fleet.openai.with_options(timeout=300).embeddings.create(model=MODEL, input="What is a site?")
        assert answer.data[0].embedding
        assert time.monotonic() - began > 1, "it was awake"
        assert _placement(fleet)["replicas"] == 1
    finally:
        config.write_text(written)
        deploy(fleet.local, SITE)


def _placement(fleet: Fleet) -> dict[str, Any]:
    site = next(site for site in read_sites(fleet.local.endpoint, fleet.local.api_key) if site["site"] == SITE)
    return next(each for each in site["placements"] if each["model"] == MODEL)
