"""Live progress with timings: a spinner per step on a terminal, plain lines anywhere else."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Report = Callable[[str], None]


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
        report, finish = self._live_step(name) if self._live else self._plain_step(name)
        report("…")
        try:
            yield report
        except BaseException:
            report("failed")
            raise
        finish()

    def _live_step(self, name: str) -> tuple[Report, Callable[[], None]]:
        live = self._live
        assert live is not None
        task = live.add_task(f"{name:<18}", total=1)
        return (
            lambda doing: live.update(task, description=f"{name:<18} [dim]{doing}"),
            lambda: live.update(task, description=f"{name:<18}", completed=1),
        )

    def _plain_step(self, name: str) -> tuple[Report, Callable[[], None]]:
        began = time.monotonic()

        def report(doing: str) -> None:
            self._console.print(f"[{time.monotonic() - self._began:6.1f} s] {name}: {doing}", markup=False)

        return report, lambda: report(f"done in {time.monotonic() - began:.1f} s")
