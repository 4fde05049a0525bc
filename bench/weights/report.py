"""The figures as tables for people."""

import shlex
from collections.abc import Sequence

from bench.report import Row, print_table
from bench.weights.contenders import COPY, OURS, VERSIONS
from bench.weights.figures import AGAIN, FETCH, REPLICATE, UPLOAD, Figures, Measured
from bench.weights.planning import LARGE_BYTES, SMALL_FILES, Planning

TITLES = {
    FETCH: "Node fetch of {gb}: from the store until it is on this disk",
    UPLOAD: "Upload of {gb}: from this disk until the store has it",
    REPLICATE: "Replication of {gb}: from one store until another has it",
    AGAIN: "Push of {gb} that the store has",
}
COLUMNS = ("wall s", "GB/s", "of cp", "client CPU s", "server CPU s", "peak MiB", "each run, wall s")


def print_commands(figures: Figures) -> None:
    """What was run, so that anybody can tell whether it was fair."""
    print(f"Peers: {', '.join(VERSIONS)}")
    for job, contenders in figures.jobs.items():
        for name, measured in contenders.items():
            print(f"  {job}, {name}: {shlex.join(measured.argv)}")
    print()


def print_figures(figures: Figures) -> None:
    """Medians of the runs, and each of them."""
    for job, contenders in figures.jobs.items():
        copy = contenders.get(COPY)
        rows = [(name, *_row(measured, figures.size, copy)) for name, measured in contenders.items()]
        print_table(TITLES[job].format(gb=f"{figures.size / 1e9:.2f} GB"), COLUMNS, rows)


def print_peaks(sizes: Sequence[Figures]) -> None:
    """Our memory by size of release."""
    columns = tuple(f"{figures.size / 2**30:.0f} GiB" for figures in sizes)
    rows = [
        (f"{name}, {job}", *(_mib(figures.of(job, name)) for figures in sizes))
        for job, contenders in sizes[-1].jobs.items()
        for name in contenders
        if name in OURS
    ]
    print_table("Peak resident memory of rayfleet by size of the release, MiB", columns, rows)


def print_planning(planning: Planning) -> None:
    print_table(
        f"Planning a release of {SMALL_FILES:,} small files and one of {LARGE_BYTES / 2**30:.0f} GiB, in "
        f"{planning.peak_bytes / 2**20:.0f} MiB",
        ("seconds",),
        [(step, f"{seconds:.3f}") for step, seconds in planning.steps.items()],
    )


def _row(measured: Measured, size: int, copy: Measured | None) -> Row:
    return (
        f"{measured.wall_s:.2f}",
        f"{size / measured.wall_s / 1e9:.2f}",
        f"{copy.wall_s / measured.wall_s:.2f}" if copy else "-",
        f"{measured.cpu_s:.2f}",
        f"{measured.server_cpu_s:.2f}",
        _mib(measured),
        " ".join(f"{sample.wall_s:.2f}" for sample in measured.samples),
    )


def _mib(measured: Measured | None) -> str:
    return f"{measured.peak_bytes / 2**20:.0f}" if measured else "-"
