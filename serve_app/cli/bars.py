"""Progress of bytes, drawn."""

from collections.abc import Sequence
from threading import Lock

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

ALL = "all sites"


class Bars:
    """One progress bar per site, in bytes moved and verified there, and one for all once there are two; may be told
    from several threads.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}
        self._lock = Lock()

    @property
    def tasks(self) -> Sequence[Task]:
        """As they stand."""
        return self._progress.tasks

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, site: str, size: int) -> None:
        with self._lock:
            self._add(site, size)
            if ALL in self._tasks:
                self._add(ALL, size)
            elif len(self._tasks) > 1:
                self._add(ALL, sum(self._totals.values()))
                done = sum(task.completed for task in self._progress.tasks)
                self._progress.update(self._tasks[ALL], completed=done)

    def advance(self, site: str, size: int) -> None:
        with self._lock:
            self._progress.advance(self._tasks[site], size)
            if ALL in self._tasks:
                self._progress.advance(self._tasks[ALL], size)

    def _add(self, name: str, size: int) -> None:
        total = self._totals[name] = self._totals.get(name, 0) + size
        if name in self._tasks:
            self._progress.update(self._tasks[name], total=total)
        else:
            self._tasks[name] = self._progress.add_task(name, total=total)

    def print(self, message: str) -> None:
        self._progress.console.print(message, soft_wrap=True)
