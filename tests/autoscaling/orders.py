"""What a site's agent tells autoscalers, in its stead: anew all the time, else it counts no more."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from autoscaling import ray_notes
from autoscaling.ray_notes import Order

INTERVAL_S = 0.5


class Orders:
    """Requests that the ingress holds, by model."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def hold(self, model: str, requests: int) -> None:
        self._held = {**self._held, model: requests}

    def write(self) -> None:
        for model, requests in self._held.items():
            ray_notes.write(model, Order(number=time.monotonic(), held=requests))


@contextmanager
def renewed() -> Iterator[Orders]:
    orders, stop = Orders(), threading.Event()

    def keep() -> None:
        while not stop.wait(INTERVAL_S):
            orders.write()

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield orders
    finally:
        stop.set()
        thread.join()
