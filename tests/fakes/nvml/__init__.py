"""NVIDIA's driver library, as a C library of its own that a test compiles and tells what to say."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LIBRARY = "libnvidia-ml.so.1"
SAYS = "FAKE_NVML"
"""The environment variable that names the file with its answers."""
DRIVER = "driver"
NOT_SUPPORTED = 3
DRIVER_NOT_LOADED = 9
GPU_IS_LOST = 15
MADE_UP = 777


@dataclass(frozen=True)
class Card:
    """How one card's readings go: NVML's code, percent, and how long they take."""

    percent: int = 0
    code: int = 0
    delay_ms: int = 0


@dataclass(frozen=True)
class FakeNvml:
    """In `directory`, where a loader finds it by its usual name."""

    directory: Path

    @property
    def library(self) -> Path:
        return self.directory / LIBRARY

    @property
    def answers(self) -> Path:
        return self.directory / "answers"

    def says(self, cards: Mapping[str, Card]) -> None:
        """From now on, of each card by its UUID, and of the driver by the name of DRIVER."""
        lines = [f"{name} {card.code} {card.percent} {card.delay_ms}\n" for name, card in cards.items()]
        fresh = self.answers.with_suffix(".new")
        fresh.write_text("".join(lines))
        fresh.replace(self.answers)

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that should find it."""
        paths = filter(None, [str(self.directory), os.environ.get("LD_LIBRARY_PATH")])
        return {"LD_LIBRARY_PATH": ":".join(paths), SAYS: str(self.answers)}


def compiled(directory: Path) -> FakeNvml | None:
    """None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    fake = FakeNvml(directory)
    source = Path(__file__).with_name("nvml.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", fake.library, source], check=True)
    fake.says({})
    return fake
