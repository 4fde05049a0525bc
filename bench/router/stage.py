"""What every contender is started on, and how it looks once it runs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.router.machine import Cores
from bench.router.requests import Target
from clusters.launch.processes import Run


@dataclass(frozen=True, slots=True)
class Stage:
    run: Run
    cores: Cores
    engines: tuple[int, int]
    """Ports of the two engines behind every contender."""
    cache: Path
    """Where peers are installed."""
    sockets: Path
    """A directory with a short path, as Ray's sockets need it."""

    @property
    def direct(self) -> Target:
        return Target(self.engines[0])


@dataclass(frozen=True, slots=True)
class Running:
    """A contender that answers. `rest` are processes that belong to it, but not to the way of a request."""

    target: Target
    processes: Sequence[psutil.Process]
    rest: Sequence[psutil.Process] = ()


Contender = Callable[[Stage], AbstractContextManager[Running]]
"""Runs a contender for as long as the context lasts. Raises LaunchError, NotInstalled or WrongAnswer."""
