"""Contenders in turn, round by round, so that all of them meet the machine in the same mood."""

import filecmp
import json
import os
import random
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers import NotInstalled
from bench.usage import Usage
from bench.weights.contenders import (
    COPY,
    FETCHES,
    PUSHES_AGAIN,
    REPLICATIONS,
    UPLOADS,
    Command,
    Fetch,
    Send,
    copy_fetch,
    rayfleet_fetch,
    rayfleet_push,
)
from bench.weights.figures import AGAIN, FETCH, REPLICATE, UPLOAD, Figures, Job, Measured, Sample
from bench.weights.stage import OTHER, Server, Stage, serving
from clusters.launch.processes import LaunchError, clean_environment, end, find, log_tail, spawn
from clusters.storage import Verify

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 900
"""Of one command."""
CLIENT = "client"
READ_BYTES = 4 * 2**20
ONCE = (REPLICATE,)
"""The longest, and no goal is held against it."""
OWN_VARIABLES = ("AWS_", "RCLONE_")
"""Beginnings of what a user may have set for clients of his own."""


class Failed(Exception):
    """A command failed, or left other bytes than it should: its time would mean nothing."""


@dataclass(frozen=True, slots=True)
class Task:
    """A command about to be run, and an empty place to which it writes."""

    command: Command
    servers: Sequence[Server]
    written: Path
    """Where the files of the release are afterwards."""
    synced: Path | None = None
    """The time ends when everything below is on the disk."""


Trial = Callable[[], AbstractContextManager[Task]]


def push_home(stage: Stage) -> None:
    """The home store has the release afterwards. Raises Failed."""
    run(stage, rayfleet_push(Verify.FULL)(stage, stage.home))


def measure_all(stage: Stage, jobs: Collection[str], names: Collection[str], runs: int) -> Figures:
    """What the contenders of these names do in the time, and what `cp` does."""
    # The server digests an object when it is asked for it first; that is nobody's doing.
    run(stage, rayfleet_fetch()(stage, stage.run.directory / "warm"))
    shutil.rmtree(stage.run.directory / "warm")
    chosen = {job: trials for job, trials in _trials(stage).items() if job in jobs}
    return Figures(
        stage.size,
        {
            job: _measure(
                stage, {name: trials[name] for name in trials if name in (COPY, *names)}, 1 if job in ONCE else runs
            )
            for job, trials in chosen.items()
        },
    )


def _trials(stage: Stage) -> dict[str, dict[str, Trial]]:
    copy = {COPY: _fetching(stage, copy_fetch)}
    return {
        FETCH: copy | {name: _fetching(stage, fetch) for name, fetch in FETCHES.items()},
        UPLOAD: copy | {name: _sending(stage, send, []) for name, send in UPLOADS.items()},
        REPLICATE: copy | {name: _sending(stage, send, [stage.home]) for name, send in REPLICATIONS.items()},
        AGAIN: {name: _going_home(stage, send) for name, send in PUSHES_AGAIN.items()},
    }


def _fetching(stage: Stage, fetch: Fetch) -> Trial:
    @contextmanager
    def trial() -> Iterator[Task]:
        directory = stage.run.directory / "fetched"
        directory.mkdir()
        try:
            command = fetch(stage, directory)
            yield Task(command, [stage.home], directory / command.below, synced=directory)
        finally:
            shutil.rmtree(directory)

    return trial


def _sending(stage: Stage, send: Send, sources: Sequence[Server]) -> Trial:
    @contextmanager
    def trial() -> Iterator[Task]:
        with serving(stage.run, OTHER) as server:
            yield Task(send(stage, server), [*sources, server], server.bucket / stage.prefix)

    return trial


def _going_home(stage: Stage, send: Send) -> Trial:
    @contextmanager
    def trial() -> Iterator[Task]:
        yield Task(send(stage, stage.home), [stage.home], stage.home.bucket / stage.prefix)

    return trial


def _measure(stage: Stage, trials: Mapping[str, Trial], runs: int) -> Job:
    """The first run of each is compared byte by byte. One that fails is left out, with a line that says why."""
    argvs: dict[str, Sequence[str]] = {}
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    names = list(trials)
    for number in range(runs):
        _read(stage.source)
        _read(stage.home.bucket)
        # Nobody follows always after the same one: what it left of memory and disk queues is felt.
        for name in random.Random(number).sample(names, len(names)):
            try:
                with trials[name]() as task:
                    samples[name].append(_sample(stage, task))
                    _compare(stage.source, task.written, shallow=number > 0)
                    argvs[name] = task.command.argv
            except (Failed, NotInstalled, LaunchError) as error:
                print(f"{name}: left out: {error}", file=sys.stderr)
                names.remove(name)
    return {name: Measured(argvs[name], samples[name]) for name in trials if name in names}


def _sample(stage: Stage, task: Task) -> Sample:
    os.sync()
    before_s = _cpu_s(task.servers)
    used = run(stage, task.command, task.synced)
    return Sample(
        wall_s=used["wall_s"],
        sync_s=used["sync_s"],
        cpu_s=used["cpu_s"],
        server_cpu_s=_cpu_s(task.servers) - before_s,
        peak_bytes=int(used["peak_bytes"]),
    )


def run(stage: Stage, command: Command, synced: Path | None = None) -> Mapping[str, float]:
    """What the command used, as `timed.py` writes it down. Raises Failed."""
    log, report = stage.run.log(CLIENT), stage.run.directory / "used.json"
    log.unlink(missing_ok=True)
    timed = [sys.executable, "-I", "-S", str(Path(__file__).with_name("timed.py")), str(report), str(synced or "-")]
    environ = {name: value for name, value in clean_environment().items() if not name.startswith(OWN_VARIABLES)}
    process = spawn(stage.run, CLIENT, [*timed, *command.argv], {**environ, **command.environ}, cwd=ROOT)
    try:
        status = process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        end(stage.run.id, CLIENT, grace_s=0)
        raise Failed(f"not done after {TIMEOUT_S} s: {' '.join(command.argv)}") from error
    if status:
        raise Failed(f"status {status}: {' '.join(command.argv)}\n{log_tail(log)}")
    used: Mapping[str, float] = json.loads(report.read_text())
    return used


def _cpu_s(servers: Sequence[Server]) -> float:
    return sum(Usage.of(find(server.run.id)).cpu_s for server in servers)


def _compare(source: Path, written: Path, shallow: bool) -> None:
    """Raises Failed unless every file is there with its size, and with its bytes unless `shallow`."""
    for path in source.iterdir():
        copy = written / path.name
        if not copy.is_file() or copy.stat().st_size != path.stat().st_size:
            raise Failed(f"{path.name} is not whole at {written}")
        if not (shallow or filecmp.cmp(path, copy, shallow=False)):
            raise Failed(f"{path.name} has other bytes at {written}")


def _read(directory: Path) -> None:
    """So that the page cache has it, as far as there is room."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(READ_BYTES):
                    pass
