"""Processes of a run are found by their mark, however far they get from their parent."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clusters.launch.processes import LaunchError, Run, clean_environment, end, find, spawn, wait_until

DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(60)
"""
SLEEP = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.new(tmp_path)


@pytest.fixture
def start(run: Run) -> Iterator[Start]:
    """Starts a Python process as a part, by default of `run`; all of them are gone after the test."""
    started: list[tuple[Run, subprocess.Popen[bytes]]] = []

    def start(part: str, code: str, *arguments: str, of: Run = run) -> subprocess.Popen[bytes]:
        process = spawn(of, part, [sys.executable, "-c", code, *arguments], clean_environment())
        started.append((of, process))
        return process

    yield start
    for owner, process in started:
        end(owner.id, grace_s=0)
        process.wait(10)


def _patiently(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_daemon_is_found_and_ended(run: Run, start: Start, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = start("store", DAEMON, str(pid_file))
    child.wait(10)
    _patiently(lambda: pid_file.exists() and pid_file.read_text() != "")
    (daemon,) = find(run.id)
    assert daemon.pid == int(pid_file.read_text()) != child.pid
    assert end(run.id) == 1
    assert find(run.id) == []
    assert not daemon.is_running()


def test_parts_end_one_by_one(run: Run, start: Start) -> None:
    start("one", SLEEP)
    two = start("two", SLEEP)
    _patiently(lambda: len(find(run.id)) == 2)
    assert end(run.id, "one") == 1
    assert [process.pid for process in find(run.id)] == [two.pid]


def test_another_run_is_left_alone(run: Run, start: Start, tmp_path: Path) -> None:
    other = Run.new(tmp_path / "other")
    start("part", SLEEP, of=other)
    assert end(run.id) == 0
    assert len(find(other.id)) == 1
    assert end(other.id) == 1


def test_what_ignores_sigterm_is_killed(run: Run, start: Start) -> None:
    process = start("deaf", STUBBORN)
    wait_until(run, "deaf", lambda: "deaf" in run.log("deaf").read_text(), process, 10)
    assert end(run.id, grace_s=1.1) == 1
    assert find(run.id) == []


def test_a_start_that_fails_shows_the_tail_of_its_log(run: Run, start: Start) -> None:
    process = start("store", "print('line\\n' * 100); raise SystemExit('port 9000 is taken')")
    with pytest.raises(LaunchError) as failure:
        wait_until(run, "store", lambda: False, process, 30)
    report = str(failure.value)
    assert report.startswith("store ended with status 1\n")
    assert report.endswith("port 9000 is taken")
    assert report.count("\n") <= 31


def test_a_start_that_takes_too_long_shows_it_too(run: Run, start: Start) -> None:
    process = start("store", "print('still loading', flush=True); import time; time.sleep(60)")
    _patiently(lambda: "still loading" in run.log("store").read_text())
    with pytest.raises(LaunchError, match=r"store was not ready after 0 s\nstill loading"):
        wait_until(run, "store", lambda: False, process, 0.2)


def test_children_join_no_other_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAYFLEET_RUN", "another")
    monkeypatch.setenv("RAYFLEET_TOKEN_EAST", "kept")
    environment = clean_environment()
    assert "RAY_ADDRESS" not in environment
    assert "RAYFLEET_RUN" not in environment
    assert environment["RAYFLEET_TOKEN_EAST"] == "kept"
