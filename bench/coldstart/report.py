"""The figures as tables for people, and the goals."""

from bench.coldstart import ours, plain
from bench.coldstart.figures import OWN_WORDS, PHASES, Figures
from bench.goals import Goal
from bench.report import print_table


def print_figures(figures: Figures) -> None:
    names = tuple(figures.starts)
    rows = [(phase, *(_seconds(figures.phase_s(name, phase)) for name in names)) for phase in PHASES]
    at = PHASES.index("engine") + 1
    rows[at:at] = [
        (f"  of that, {part}", *(_seconds(figures.engine_s(name, part)) for name in names)) for part in OWN_WORDS
    ]
    rows.append(("in all, to the first token", *(_seconds(figures.total_s(name)) for name in names)))
    print_table("From the wish for an engine to its first token: seconds, medians", names, rows)
    print_table(
        "Each run",
        ("in all, s", "first request, ms", "steady, ms"),
        [
            (f"{name} {number}", f"{start.total_s:.2f}", f"{1000 * start.first_s:.1f}", f"{1000 * start.steady_s:.1f}")
            for name, starts in figures.starts.items()
            for number, start in enumerate(starts, start=1)
        ],
    )


def goals(figures: Figures) -> list[Goal]:
    total, limit = figures.total_s(ours.NAME), figures.total_s(plain.NAME)
    return [
        Goal("cold_start_by_vllm_serve", total / limit if total and limit else None, 1.3, at_most=True),
        Goal("first_request_by_steady", figures.first_by_steady(ours.NAME), 2.0, at_most=True),
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
