"""What processes use of the machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds, user and system, since the processes began; resident memory."""

    cpu_s: float
    rss_bytes: int

    @classmethod
    def of(cls, processes: Sequence[psutil.Process]) -> Self:
        cpu_s, rss = 0.0, 0
        for process in processes:
            try:
                times, memory = process.cpu_times(), process.memory_info()
            except psutil.NoSuchProcess:
                continue
            cpu_s += times.user + times.system
            rss += memory.rss
        return cls(cpu_s, rss)
