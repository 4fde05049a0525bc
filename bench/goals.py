"""What a benchmark's figures are held against."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """`measured` is None where a contender that it needs was not measured."""

    name: str
    measured: float | None
    limit: float
    at_most: bool
    stretch: bool = False
    """For information: missing it fails nothing."""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit

    @property
    def missed(self) -> bool:
        return self.met is False and not self.stretch

    @property
    def bound(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.limit:g}"

    def report(self) -> dict[str, Any]:
        known = self.measured is not None and math.isfinite(self.measured)
        return {"measured": self.measured if known else None, "goal": self.bound, "met": self.met}
