"""Waiting for real events, with a bound."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether the condition held within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
