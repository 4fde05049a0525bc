"""Runs one command and writes down what it used: `timed.py REPORT DIRECTORY COMMAND...`. The time ends when every file
below DIRECTORY is on the disk; `-` stands for none. It begins with the command, or when a program that uses a library
writes the time to the file that BENCH_BEGAN names: what a process imports once in its life is no part of a transfer.

A small process between: the kernel counts a parent's memory at the fork into the peak of its child.
"""

import json
import os
import sys
import time
from pathlib import Path

MARK = "BENCH_BEGAN"


def main(report: str, directory: str, *command: str) -> int:
    mark = Path(f"{report}.began")
    mark.unlink(missing_ok=True)
    began = time.perf_counter()
    os.environ[MARK] = str(mark)
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    ended = time.perf_counter()
    if mark.exists():
        began = float(mark.read_text())
    if directory != "-":
        _sync(Path(directory))
    used = {
        "wall_s": time.perf_counter() - began,
        "sync_s": time.perf_counter() - ended,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    Path(report).write_text(json.dumps(used))
    return os.waitstatus_to_exitcode(status)


def _sync(directory: Path) -> None:
    for path in directory.rglob("*"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
