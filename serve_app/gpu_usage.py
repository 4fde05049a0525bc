"""How busy a replica's cards are, by NVML. Measured only where the placement scales by it."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from ray._private.thirdparty import pynvml  # NVIDIA's own module, as Ray brings it for counting a node's cards

logger = logging.getLogger("ray.serve")

INTERVAL_S = 0.5
SPAN_S = 3.0
"""Of readings that are averaged. Each is NVML's own mean, over up to a second."""
PERCENT = 100


def card_of(device: torch.device) -> str:
    """NVML's UUID of it. Numbers would not do: CUDA counts what a process may see, NVML counts all."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


class CardOfWorker:
    """Extends vLLM's workers: they run in actors of their own, and only they know their cards."""

    device: torch.device

    def rayfleet_card(self) -> str:
        """For `collective_rpc`."""
        return card_of(self.device)


class GpuUsage:
    """Of one replica's cards, by their UUIDs: whole ones, since NVML tells of no less, and all on this node."""

    def __init__(self, cards: Sequence[str]):
        self._cards = cards
        self._handles: list[Any] = []
        self._readings = deque[tuple[float, float]](maxlen=round(SPAN_S / INTERVAL_S))
        self._trouble = ""

    def share(self, now: float) -> float | None:
        """Of the latest seconds, that in which the cards computed, 0 to 1. None is no data. `now` is monotonic."""
        fresh = [share for at, share in self._readings if now - at <= SPAN_S]
        return sum(fresh) / len(fresh) if fresh else None

    async def watch(self) -> None:
        """For ever. In a thread: a driver in trouble lets its callers wait."""
        while True:
            share = await asyncio.to_thread(self._sample)
            if share is not None:
                self._readings.append((time.monotonic(), share))
            await asyncio.sleep(INTERVAL_S)

    def _sample(self) -> float | None:
        """A trouble is told once."""
        try:
            return self._read()
        except NoReading as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                logger.warning("it is not known how busy %s are: %s", ", ".join(self._cards), error)
            return None

    def _read(self) -> float:
        """The mean of the cards. Raises NoReading."""
        try:
            if not self._handles:
                pynvml.nvmlInit()
                self._handles = [pynvml.nvmlDeviceGetHandleByUUID(card) for card in self._cards]
            percents = [int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu) for handle in self._handles]
        except pynvml.NVMLError as error:
            self._handles = []
            raise NoReading(f"NVML says: {error}") from error
        if max(percents) > PERCENT:
            raise NoReading(f"NVML says {max(percents)} %")
        return sum(percents) / len(percents) / PERCENT


class NoReading(Exception):
    """Why there is none, for people."""
