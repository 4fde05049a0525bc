"""Tables for people, and the last line for programs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.goals import Goal

WIDTH = 120
MET = {True: "yes", False: "NO", None: "not measured"}

Row = tuple[str, ...]


def conclude(bench: str, goals: Sequence[Goal], figures: Any, file: Path | None) -> None:
    """Prints the goals: a table, then one line of JSON. `file` gets the raw figures too."""
    print_table(
        "Goals",
        ("measured", "goal", "met"),
        [
            (goal.name, "-" if goal.measured is None else f"{goal.measured:.3f}", goal.bound, MET[goal.met])
            for goal in goals
        ],
    )
    summary = {"bench": bench, "goals": {goal.name: goal.report() for goal in goals}}
    if file:
        file.write_text(json.dumps({**summary, "figures": figures}, indent=1))
    print(json.dumps(summary))


def print_table(title: str, columns: Row, rows: Sequence[Row]) -> None:
    """Nothing where there are no rows; the first column of each is its name."""
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(width=WIDTH)
    console.print(title, style="bold", highlight=False)
    console.print(table)
