"""What a provider said of taking a node back, and what of it is news. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

TOLERANCE_S = 2.0
"""Two readings of one notice may differ by this: providers' clocks tell whole seconds."""


class NoticeSource(StrEnum):
    """Whose metadata server tells a node that it is taken back."""

    AWS = "aws"
    GCP = "gcp"
    AZURE = "azure"
    NONE = "none"


@dataclass(frozen=True)
class Notice:
    """The provider takes this node back at `ends_at`, in seconds since the epoch by the node's own clock."""

    ends_at: float
    message: str


class NoticeReader(Protocol):
    """Asks the metadata server of one provider."""

    @property
    def interval_s(self) -> float:
        """Seconds between two readings."""

    async def read(self) -> Sequence[Notice]:
        """Every notice that stands, none as a rule. Raises MetadataError where nothing is known."""


def news(known: Notice | None, read: Sequence[Notice]) -> Notice | None:
    """The earliest of what was read, unless as much is known. A later end is no news: a provider that only says "soon"
    says so again at every reading, and a node that was told to leave does not come back."""
    earliest = min(read, key=lambda notice: notice.ends_at, default=None)
    if earliest is None or (known is not None and earliest.ends_at > known.ends_at - TOLERANCE_S):
        return None
    return earliest


def own_time(stated: float, theirs: float | None, now: float, longest_s: float) -> float:
    """When `stated`, a time by the provider's clock, is by ours, between now and `longest_s` ahead.

    `theirs` is the provider's clock at `now`, where it told: then the node's own may be wrong by hours.
    """
    remaining_s = stated - (now if theirs is None else theirs)
    return now + min(max(0.0, remaining_s), longest_s)
