"""A new version of the ingress, deployed under load, fails no request."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import yaml

from clusters.launch.local import INGRESS, deploy, wait_running
from tests.e2e.conftest import Fleet
from tests.e2e.finding import running
from tests.e2e.waiting import wait_for

CLIENTS = 6
REPLACED_WITHIN_S = 300
"""Serve itself lets a replica stay for 30 s before it tells it to go."""


@dataclass
class Tally:
    """What the clients saw."""

    answers: int = 0
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def test_a_redeploy_under_load_fails_no_request(fleet: Fleet) -> None:
    before = _replicas(fleet)
    config = fleet.local.config(INGRESS)
    written = config.read_text()
    changed = yaml.safe_load(written)
    changed["applications"][0]["args"]["fleet"]["routing"]["retry_budget"] = 0.25
    try:
        config.write_text(yaml.safe_dump(changed))
        with _clients(fleet) as tally:
            assert wait_for(lambda: tally.answers >= 20, 60)
            deploy(fleet.local, INGRESS)
            wait_running(fleet.local, INGRESS, print)
            assert wait_for(lambda: not before & _replicas(fleet), REPLACED_WITHIN_S), "the old replica never left"
            seen = tally.answers
            assert wait_for(lambda: tally.answers >= seen + 20, 60), "the new replica takes no requests"
    finally:
        config.write_text(written)
    assert not tally.failures


@contextmanager
def _clients(fleet: Fleet) -> Iterator[Tally]:
    tally, stop = Tally(), threading.Event()
    threads = [threading.Thread(target=_ask_until, args=(fleet, tally, stop, n % 2 == 0)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)


def _ask_until(fleet: Fleet, tally: Tally, stop: threading.Event, keep_alive: bool) -> None:
    """Half of the clients keep their connections; half of the requests are streams."""
    headers = {"authorization": f"Bearer {fleet.local.api_key}"}
    if not keep_alive:
        headers["connection"] = "close"
    with httpx.Client(base_url=fleet.local.endpoint, headers=headers, timeout=120) as client:
        number = 0
        while not stop.is_set():
            number += 1
            stream = number % 2 == 0
            body = {"model": "demo-chat", "prompt": "a", "max_tokens": 8, "ignore_eos": True, "stream": stream}
            try:
                answer = client.post("/v1/completions", json=body)
                whole = answer.text.endswith("data: [DONE]\n\n") if stream else "usage" in answer.json()
                failure = None if answer.status_code == 200 and whole else f"{answer.status_code}: {answer.text}"
            except (httpx.HTTPError, ValueError) as error:
                failure = repr(error)
            with tally.lock:
                if failure is None:
                    tally.answers += 1
                else:
                    tally.failures.append(failure)
            time.sleep(0.05)


def _replicas(fleet: Fleet) -> set[int]:
    """Process ids of the ingress's replicas."""
    return {process.pid for process in running(fleet.local.run.id, INGRESS, "ServeReplica:", ":Ingress")}
