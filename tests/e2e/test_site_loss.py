"""A site dies with every process while requests run, and comes back."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import openai
from rich.console import Console

from clusters.launch import local as launch
from clusters.launch.processes import find
from serve_app.cli.local import bring_back
from tests.e2e.conftest import Fleet
from tests.e2e.waiting import wait_for

VICTIM = "gcp-europe-west4"
CLIENTS = 6


@dataclass
class Tally:
    """What the clients saw: answers by site, and every failure."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def test_a_lost_site_fails_no_request_and_comes_back(fleet: Fleet) -> None:
    with _clients(fleet) as tally:
        assert wait_for(lambda: tally.answers[VICTIM] >= 5, 60), "the site took no traffic before its loss"
        assert launch.stop_cluster(fleet.local, VICTIM, grace_s=0) > 10
        assert not find(fleet.local.run.id, VICTIM)
        assert wait_for(lambda: VICTIM not in fleet.healthy(), 15), "the ingress still trusts a dead site"
        at_victim, elsewhere = tally.answers[VICTIM], tally.answers.total()
        assert wait_for(lambda: tally.answers.total() >= elsewhere + 30, 60), "the others stopped answering"
        assert tally.answers[VICTIM] == at_victim
    assert not tally.failures

    bring_back(fleet.local, VICTIM, Console())
    assert wait_for(lambda: VICTIM in fleet.healthy(), 30)
    with _clients(fleet) as tally:
        assert wait_for(lambda: tally.answers[VICTIM] >= 5, 60), "the site came back but takes no traffic"
    assert not tally.failures


@contextmanager
def _clients(fleet: Fleet) -> Iterator[Tally]:
    tally, stop = Tally(), threading.Event()
    threads = [threading.Thread(target=_ask_until, args=(fleet, tally, stop)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)


def _ask_until(fleet: Fleet, tally: Tally, stop: threading.Event) -> None:
    """Whole answers: none of them has begun for its client before the site is lost."""
    while not stop.is_set():
        try:
            raw = fleet.openai.completions.with_raw_response.create(
                model="demo-chat",
                prompt="a",
                max_tokens=8,
                extra_body={"ignore_eos": True},
                extra_headers={"x-rayfleet-policy": "least_loaded"},
            )
        except openai.OpenAIError as error:
            with tally.lock:
                tally.failures.append(repr(error))
        else:
            with tally.lock:
                tally.answers[raw.headers["x-rayfleet-site"]] += 1
