"""Budgets: what may be done on top of plain requests, as a share of them."""

BURST = 10.0


class Budget:
    """A token bucket that requests fill. When it is empty, trouble everywhere does not turn into twice the load."""

    __slots__ = ("_saved", "_share")

    def __init__(self, share: float):
        self._share = share
        self._saved = BURST if share else 0.0

    def earn(self) -> None:
        """A request came."""
        if self._saved < BURST:
            self._saved += self._share

    def spend(self) -> bool:
        """Whether one more extra attempt may be made now; if so, it counts."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
