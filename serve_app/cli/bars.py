"""Progress of bytes, drawn."""

from threading import Lock

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)


class Bars:
    """One progress bar per site, in bytes moved and verified there; may be told from several threads."""

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

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, site: str, size: int) -> None:
        with self._lock:
            total = self._totals[site] = self._totals.get(site, 0) + size
            if site in self._tasks:
                self._progress.update(self._tasks[site], total=total)
            else:
                self._tasks[site] = self._progress.add_task(site, total=total)

    def advance(self, site: str, size: int) -> None:
        self._progress.advance(self._tasks[site], size)

    def print(self, message: str) -> None:
        self._progress.console.print(message, soft_wrap=True)
