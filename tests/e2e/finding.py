"""Processes of the fleet, by what they are."""

import psutil

from clusters.launch.processes import find


def running(run: str, name: str, *words: str) -> list[psutil.Process]:
    """Those of one cluster of the run with all of these words in their command lines."""
    return [process for process in find(run, name) if all(word in _command(process) for word in words)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""
