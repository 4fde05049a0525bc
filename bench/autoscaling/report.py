"""The figures as tables for people."""

from collections.abc import Mapping, Sequence

from bench.autoscaling.contenders import CONTENDERS
from bench.autoscaling.stage import Run, Stage
from bench.report import Row, print_table

COLUMNS = ("knob", "attained", "TTFT p99 s", "GPU-h", "USD", "changes/h", "worst queue")


def print_runs(stage: Stage, runs: Mapping[str, Sequence[Run]], spot: Sequence[Run], trace: str) -> None:
    service = f"{stage.attainment:.0%} of first tokens within {stage.ttft_target_s:g} s"
    print_table(
        f"{trace}: {len(stage.requests):,} requests, an 8B model on {stage.card} (assumed speeds), replicas answer "
        f"after {stage.start_s:g} s.\nEach policy at its cheapest setting with {service}, as all tighter ones have; "
        "* where none is",
        COLUMNS,
        [_row(stage, name, each[0]) for name, each in runs.items() if each],
    )
    print_table(
        "Every setting that was played",
        COLUMNS,
        [
            _row(stage, name, run)
            for name, each in runs.items()
            if name in CONTENDERS
            for run in sorted(each, key=lambda run: run.knob)
        ],
    )
    print_table(
        "Ours with spot zones: hours with a loss in their middle (availability of V100s, prices of this card)",
        ("on demand", *COLUMNS[1:], "lost", "continued"),
        [(*_row(stage, run.policy, run), str(run.interrupted), str(run.continued)) for run in spot],
    )


def _row(stage: Stage, name: str, run: Run) -> Row:
    return (
        name if run.attainment >= stage.attainment else f"{name} *",
        f"{run.knob:g}",
        f"{run.attainment:.2%}",
        f"{run.ttft_p99_s:.2f}",
        f"{run.gpu_hours:.2f}",
        f"{run.usd:.2f}",
        f"{run.changes_per_hour:.1f}",
        str(run.worst_queue),
    )
