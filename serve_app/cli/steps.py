"""Live progress with timings: a spinner per step on a terminal, plain lines anywhere else."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Report = Callable[[str], None]


def console() -> Console:
    """Of the command's output: as wide as the terminal, and wide enough for tables where there is none."""
    made = Console()
    return made if made.is_terminal else Console(width=120)


class Steps:
    """Steps may run at the same time, from several threads."""

    def __init__(self, console: Console):
        self._console = console
        self._began = time.monotonic()
        columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), TimeElapsedColumn())
        self._live = Progress(*columns, console=console) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    @contextmanager
    def step(self, name: str) -> Iterator[Report]:
        """Yields a function that says what the step is doing now."""
        report, finish = _live_step(self._live, name) if self._live else self._plain_step(name)
        try:
            yield report
        except BaseException:
            report("failed")
            raise
        finish()

    def _plain_step(self, name: str) -> tuple[Report, Callable[[], None]]:
        began = time.monotonic()

        def report(doing: str) -> None:
            line = f"[{time.monotonic() - self._began:6.1f} s] {name}: {doing}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

        return report, lambda: report(f"done in {time.monotonic() - began:.1f} s")


def _live_step(live: Progress, name: str) -> tuple[Report, Callable[[], None]]:
    task = live.add_task(f"{name:<18}", total=1)
    return (
        lambda doing: live.update(task, description=f"{name:<18} [dim]{doing}"),
        lambda: live.update(task, description=f"{name:<18}", completed=1),
    )
