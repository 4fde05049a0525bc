"""How the machine is split."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil


class TooFewCores(Exception):
    """A contender and what drives it need a core each."""


@dataclass(frozen=True, slots=True)
class Cores:
    contender: int
    load: int
    """The load generator, the fake engine, and everything that is not measured."""

    @classmethod
    def split(cls) -> Self:
        """The first two that this process may use. Raises TooFewCores."""
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            raise TooFewCores("the benchmark needs two cores: one for the contender, one for what drives it")
        return cls(*usable[:2])


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """This thread, and what it starts meanwhile, stays there: children inherit it before their first thread exists."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def move(process: psutil.Process, core: int) -> None:
    """Move a running process: affinity is each thread's own."""
    for thread in Path(f"/proc/{process.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def allow_many_connections() -> None:
    """As many open files as may be, for this process and what it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
