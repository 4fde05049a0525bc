"""The goals, and which of them the figures meet."""

import os
from collections.abc import Iterable, Iterator, Sequence

from bench.goals import Goal
from bench.weights.contenders import COPY, HASH_ALONE, OURS, RAYFLEET, UNCHECKED, WITHOUT_DIGESTS
from bench.weights.figures import AGAIN, FETCH, REPLICATE, UPLOAD, Figures, Measured

PEAK_MIB = 512


def goals(figures: Figures, sizes: Sequence[Figures]) -> list[Goal]:
    """`sizes` are all that were measured: of others than `figures` only memory counts."""

    def ahead(name: str, measured: float | None, stretch: bool = False) -> Goal:
        return Goal(name, measured, 1.0, at_most=False, stretch=stretch)

    def speed(job: str, peer: str) -> float | None:
        """Ours by the peer's."""
        return ratio(figures.of(job, peer), figures.of(job, RAYFLEET))

    def lead(job: str) -> float | None:
        """Ours by the best peer's."""
        peers = [one for name, one in figures.jobs.get(job, {}).items() if name not in (COPY, UNCHECKED, *OURS)]
        return ratio(min(peers, key=lambda one: one.wall_s, default=None), figures.of(job, RAYFLEET))

    without_digests = ratio(figures.of(FETCH, WITHOUT_DIGESTS), figures.of(FETCH, RAYFLEET))
    pushed, hashed = figures.of(AGAIN, RAYFLEET), figures.of(AGAIN, HASH_ALONE)
    return [
        Goal("fetch_share_of_cp", speed(FETCH, COPY), 0.4, at_most=False),
        ahead("fetch_by_best_peer", lead(FETCH)),
        ahead("fetch_by_rclone_copy_unchecked", speed(FETCH, UNCHECKED), stretch=True),
        Goal("upload_share_of_cp", speed(UPLOAD, COPY), 0.18, at_most=False),
        ahead("upload_by_boto3", speed(UPLOAD, "boto3")),
        ahead("upload_by_aws_cli", speed(UPLOAD, "aws-cli")),
        ahead("upload_by_rclone_copy", speed(UPLOAD, "rclone-copy")),
        ahead("upload_by_best_peer", lead(UPLOAD), stretch=True),
        ahead("replicate_by_best_peer", lead(REPLICATE), stretch=True),
        Goal("verification_share_of_fetch", without_digests and 1 - without_digests, 0.1, at_most=True),
        Goal("hashing_alone_cpu_share_of_fetch", hashing_share(figures), 0.1, at_most=True, stretch=True),
        Goal("push_again_s_beyond_hashing", pushed.wall_s - hashed.wall_s if pushed and hashed else None, 1.0, True),
        Goal("peak_mib", max(_peaks_mib(sizes), default=None), PEAK_MIB, at_most=True),
    ]


def hashing_share(figures: Figures) -> float | None:
    """Of all CPU that there is while a fetch runs; less noisy than the difference of two wall times."""
    hashed, fetched = figures.of(AGAIN, HASH_ALONE), figures.of(FETCH, RAYFLEET)
    return hashed.cpu_s / (fetched.wall_s * len(os.sched_getaffinity(0))) if hashed and fetched else None


def ratio(measured: Measured | None, by: Measured | None) -> float | None:
    """Of wall times."""
    return measured.wall_s / by.wall_s if measured and by else None


def _peaks_mib(sizes: Iterable[Figures]) -> Iterator[float]:
    for job in (job for figures in sizes for job in figures.jobs.values()):
        yield from (measured.peak_bytes / 2**20 for name, measured in job.items() if name in OURS)
