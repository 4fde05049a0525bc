"""Processes of one local run. Each carries the run's mark in its environment, and so does everything it starts:
Ray re-parents its daemons and workers, so pids and process groups would not find them all."""

import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

RUN_MARK = "RAYFLEET_RUN"
PART_MARK = "RAYFLEET_PART"
KILLS = 5


class LaunchError(Exception):
    """A part of the local fleet did not start. The message ends with the tail of its log."""


@dataclass(frozen=True)
class Run:
    """One local fleet: its mark, and the directory that holds its logs and secrets."""

    id: str
    directory: Path

    @classmethod
    def new(cls, directory: Path) -> "Run":
        return cls(secrets.token_hex(6), directory)

    def log(self, part: str) -> Path:
        return self.directory / "logs" / f"{part}.log"


def spawn(
    run: Run, part: str, argv: Sequence[str], env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process of `part` in its own session, its output appended to the part's log. Reaped when it ends."""
    run.log(part).parent.mkdir(parents=True, exist_ok=True)
    with run.log(part).open("ab") as log:
        process = subprocess.Popen(
            argv,
            # SPT_NOENV: else Ray and vLLM write their process titles over the environment, and so over the marks.
            env={**env, RUN_MARK: run.id, PART_MARK: part, "SPT_NOENV": "1"},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    threading.Thread(target=process.wait, name=part, daemon=True).start()
    return process


def wait_until(
    run: Run, part: str, ready: Callable[[], bool], process: subprocess.Popen[bytes], timeout_s: float
) -> None:
    """Poll `ready` until it holds. Raises LaunchError with the log's tail when the process ends or time is up."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None:
            raise LaunchError(f"{part} ended with status {process.returncode}\n{log_tail(run.log(part))}")
        if time.monotonic() > deadline:
            raise LaunchError(f"{part} was not ready after {timeout_s:.0f} s\n{log_tail(run.log(part))}")
        time.sleep(0.1)


def find(run_id: str, part: str | None = None) -> list[psutil.Process]:
    """Every living process of a run, or of one part of it."""
    found = []
    for process in psutil.process_iter():
        try:
            env = process.environ()
            marked = env.get(RUN_MARK) == run_id and part in (None, env.get(PART_MARK))
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def end(run_id: str, part: str | None = None, grace_s: float = 5) -> int:
    """End every process of a run or part: SIGTERM, and SIGKILL to what is left after `grace_s`.

    Returns how many there were.
    """
    total = 0
    rounds = [(psutil.Process.terminate, grace_s)] if grace_s else []
    # Several kills: a parent that dies late may still fork.
    for signal, wait_s in rounds + [(psutil.Process.kill, 1.0)] * KILLS:
        processes = find(run_id, part)
        if not processes:
            break
        total = max(total, len(processes))
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                signal(process)
        psutil.wait_procs(processes, timeout=wait_s)
    return total


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
        return True


def log_tail(path: Path, lines: int = 30) -> str:
    if not path.exists():
        return f"(no log at {path})"
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - 64 * 1024))
        return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def clean_environment() -> dict[str, str]:
    """This process's environment without what would make a child join another run or another Ray cluster."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "RAYFLEET_RUN", "RAYFLEET_PART"))
    }
