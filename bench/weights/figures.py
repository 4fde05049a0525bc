"""What was measured, and the figures that follow from it."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one command. CPU is in seconds, user and system."""

    wall_s: float
    """From its start until its end, for a fetch until its files are on the disk."""
    sync_s: float
    """Of these, what was left to write when it had ended."""
    cpu_s: float
    server_cpu_s: float
    peak_bytes: int
    """Of resident memory; where it is several processes, of the largest."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender at one job."""

    argv: Sequence[str]
    samples: Sequence[Sample]

    @property
    def wall_s(self) -> float:
        return statistics.median(sample.wall_s for sample in self.samples)

    @property
    def sync_s(self) -> float:
        return statistics.median(sample.sync_s for sample in self.samples)

    @property
    def cpu_s(self) -> float:
        return statistics.median(sample.cpu_s for sample in self.samples)

    @property
    def server_cpu_s(self) -> float:
        return statistics.median(sample.server_cpu_s for sample in self.samples)

    @property
    def peak_bytes(self) -> int:
        """The most of any run."""
        return max(sample.peak_bytes for sample in self.samples)


FETCH = "fetch"
UPLOAD = "upload"
REPLICATE = "replicate"
AGAIN = "again"
"""A push of what the store has."""
JOBS = (FETCH, UPLOAD, REPLICATE, AGAIN)

Job = Mapping[str, Measured]
"""By contender."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one size of release. Contenders that were left out or failed are missing."""

    size: int
    """Bytes of the release."""
    jobs: Mapping[str, Job]

    def of(self, job: str, name: str) -> Measured | None:
        return self.jobs.get(job, {}).get(name)
