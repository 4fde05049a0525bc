"""Waiting for what other threads do."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], timeout_s: float = 20) -> None:
    """Return as soon as `condition` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
