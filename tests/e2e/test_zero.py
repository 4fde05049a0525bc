"""A placement that may sleep goes to sleep, a request wakes it, and a crowd asks for more replicas."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import yaml

from clusters.launch.local import deploy
from clusters.render import AGENT_APP
from serve_app.cli.status import read_sites
from tests.e2e.conftest import Fleet
from tests.e2e.waiting import wait_for

MODEL, SITE = "demo-embed", "onprem-zurich"
"""Nothing else serves it."""
SLEEPY = {
    "min_replicas": 0,
    "max_replicas": 2,
    "target_queue_depth": 1,
    "scale_to_zero_delay_s": 3,
    "scale_down_delay_s": 3,
}
CROWD = 16


def test_a_placement_sleeps_is_woken_by_a_request_and_grows_for_a_crowd(fleet: Fleet) -> None:
    config = fleet.local.config(SITE)
    written = config.read_text()
    changed = yaml.safe_load(written)
    application = next(each for each in changed["applications"] if each["name"] == MODEL)
    application["deployments"][0]["autoscaling_config"] |= {
        key: SLEEPY[key] for key in ("min_replicas", "max_replicas")
    }
    agent = next(each for each in changed["applications"] if each["name"] == AGENT_APP)
    placement = next(each for each in agent["args"]["placements"] if each["model"] == MODEL)
    placement["autoscaling"] |= SLEEPY
    try:
        config.write_text(yaml.safe_dump(changed))
        deploy(fleet.local, SITE)
        assert wait_for(lambda: _placement(fleet)["readiness"] == "asleep", 300), _placement(fleet)
        began = time.monotonic()
        answer = fleet.openai.with_options(timeout=300).embeddings.create(model=MODEL, input="What is a site?")
        assert answer.data[0].embedding
        assert time.monotonic() - began > 1, "it was awake"
        assert _placement(fleet)["replicas"] == 1
        with _crowd(fleet):
            assert wait_for(lambda: _placement(fleet)["target_replicas"] == 2, 60), _placement(fleet)
    finally:
        config.write_text(written)
        deploy(fleet.local, SITE)


@contextmanager
def _crowd(fleet: Fleet) -> Iterator[None]:
    """So many clients, each of which asks all the time."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            fleet.openai.with_options(timeout=300).embeddings.create(model=MODEL, input=["What is a site?"] * 8)

    with ThreadPoolExecutor(CROWD) as pool:
        asking = [pool.submit(ask) for _ in range(CROWD)]
        try:
            yield
        finally:
            stop.set()
    for each in asking:
        each.result()


def _placement(fleet: Fleet) -> dict[str, Any]:
    site = next(site for site in read_sites(fleet.local.endpoint, fleet.local.api_key) if site["site"] == SITE)
    return next(each for each in site["placements"] if each["model"] == MODEL)
