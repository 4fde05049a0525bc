"""What planning takes of a release that has many files, and one larger than memory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.weights import ours
from bench.weights.contenders import Command
from bench.weights.measures import CLIENT, run
from bench.weights.stage import Stage

SMALL_FILES = 10_000
LARGE_BYTES = 100 * 2**30


@dataclass(frozen=True, slots=True)
class Planning:
    steps: Mapping[str, float]
    """Seconds of each."""
    peak_bytes: int
    """Of resident memory."""


def measure_planning(stage: Stage) -> Planning:
    """Raises Failed."""
    directory = stage.run.directory / "planned"
    _make(directory)
    used = run(stage, Command(ours.argv("plan", source=str(directory))))
    steps = json.loads(stage.run.log(CLIENT).read_text().splitlines()[-1])
    return Planning(steps, int(used["peak_bytes"]))


def _make(directory: Path) -> None:
    """The large one has no blocks: it is never read."""
    directory.mkdir()
    for number in range(SMALL_FILES):
        (directory / f"expert-{number:05}.bin").write_bytes(b"%d" % number)
    with (directory / "model.safetensors").open("wb") as file:
        file.truncate(LARGE_BYTES)
