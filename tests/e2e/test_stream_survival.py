"""Streams outlive the site that they began on: nothing is lost, repeated or changed."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from rich.console import Console

from clusters.launch import local as launch
from clusters.launch.processes import find
from serve_app.cli.local import bring_back
from tests.e2e.conftest import Fleet
from tests.e2e.finding import running
from tests.e2e.streams import Stream, differences, run_streams
from tests.e2e.waiting import wait_for

SITES = {"aws-us-east-1", "gcp-europe-west4", "onprem-zurich"}
VICTIM = "gcp-europe-west4"
STREAMS = 64


@pytest.fixture(scope="module")
def undisturbed(fleet: Fleet) -> list[Stream]:
    streams = run_streams(fleet, STREAMS)
    assert not [stream.error for stream in streams if stream.error]
    return streams


@pytest.fixture(autouse=True)
def _all_there(fleet: Fleet) -> None:
    assert wait_for(lambda: _fully_back(fleet), 240), "the victim of the test before did not come back"


def test_greedy_streams_are_the_same_twice(fleet: Fleet, undisturbed: list[Stream]) -> None:
    assert not differences(run_streams(fleet, STREAMS), undisturbed)


def test_a_drained_site_ends_its_streams_elsewhere(fleet: Fleet, undisturbed: list[Stream]) -> None:
    def drain(streams: list[Stream]) -> None:
        _wait_for_victim(streams)
        _drain(fleet, 0.0)

    before = _continuations(fleet)
    try:
        streams = run_streams(fleet, STREAMS, drain)
    finally:
        _drain(fleet, None)
    assert not differences(streams, undisturbed)
    assert _continuations(fleet) > before


@pytest.mark.parametrize("what", ["the engine", "the whole site"])
def test_a_site_that_falls_silent_loses_no_stream(fleet: Fleet, undisturbed: list[Stream], what: str) -> None:
    """Nothing is closed or reset: as with a paused process, or a network that drops everything."""

    def stop(streams: list[Stream]) -> None:
        # Found first: by the time that takes, streams would end.
        processes = _engines(fleet) if what == "the engine" else find(fleet.local.run.id, VICTIM)
        _wait_for_victim(streams)
        with _stopped(processes):
            assert wait_for(lambda: all(stream.finish or stream.error for stream in streams), 240)

    before = _continuations(fleet)
    streams = run_streams(fleet, STREAMS, stop)
    assert not differences(streams, undisturbed)
    assert _continuations(fleet) > before


def test_a_killed_site_loses_no_stream(fleet: Fleet, undisturbed: list[Stream]) -> None:
    def kill(streams: list[Stream]) -> None:
        _wait_for_victim(streams)
        assert launch.stop_cluster(fleet.local, VICTIM, grace_s=0) > 10

    before = _continuations(fleet)
    streams = run_streams(fleet, STREAMS, kill)
    bring_back(fleet.local, VICTIM, Console())
    assert not differences(streams, undisturbed)
    assert _continuations(fleet) > before


def _wait_for_victim(streams: list[Stream]) -> None:
    """Until streams are under way where they are about to be disturbed, with much of them still to come."""
    assert wait_for(lambda: any(5 <= len(stream.pieces) <= 60 for stream in streams if stream.site == VICTIM), 120)


def _drain(fleet: Fleet, deadline_s: float | None) -> None:
    answer = fleet.http.post(f"/fleet/sites/{VICTIM}/drain", json={"deadline_s": deadline_s})
    assert answer.status_code == 200, answer.text


def _engines(fleet: Fleet) -> list[psutil.Process]:
    engines = running(fleet.local.run.id, VICTIM, "EngineCore")
    assert engines
    return engines


@contextmanager
def _stopped(processes: list[psutil.Process]) -> Iterator[None]:
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            if process.is_running():
                os.kill(process.pid, signal.SIGCONT)


def _fully_back(fleet: Fleet) -> bool:
    """Requests bring an ejected placement back, its share grows for a while, and it works off what it was given."""
    body = {"model": "demo-chat", "prompt": "a", "max_tokens": 1}
    for site in SITES:
        fleet.http.post("/v1/completions", json=body, headers={"x-rayfleet-site-only": site})
    sites = fleet.http.get("/fleet/sites").json()
    whole = all(share == 1 for site in sites for share in site["shares"].values())
    idle = not any(placement["running"] for site in sites for placement in site["placements"])
    return fleet.healthy() == SITES and whole and idle and not any(site["ejected"] for site in sites)


def _continuations(fleet: Fleet) -> float:
    lines = fleet.http.get("/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith("rayfleet_continuations_total{") and 'outcome="ok"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in counted)
