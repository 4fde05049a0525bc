"""Where requests wait while every allowed site is full: bounded, and fair between tenants."""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from clusters.routing import HoldSpec

Waiter = TypeVar("Waiter")


class Holding(Generic[Waiter]):
    """A queue per tenant, first come, first served; tenants take turns."""

    def __init__(self, spec: HoldSpec):
        self._spec = spec
        self._queues: dict[str, deque[Waiter]] = {}
        self.size = 0

    def join(self, tenant: str, waiter: Waiter) -> bool:
        """False when there is no room."""
        queue = self._queues.get(tenant, deque())
        if self.size >= self._spec.max_waiting or len(queue) >= self._spec.max_waiting_per_tenant:
            return False
        queue.append(waiter)
        self._queues[tenant] = queue
        self.size += 1
        return True

    def leave(self, tenant: str, waiter: Waiter) -> None:
        """Its tenant goes to the end of the line."""
        queue = self._queues.pop(tenant, None)
        if queue is None:
            return
        if waiter in queue:
            queue.remove(waiter)
            self.size -= 1
        if queue:
            self._queues[tenant] = queue

    def in_turn(self, limit: int) -> Iterator[Waiter]:
        """Up to `limit` waiters: the first of every tenant, then the second of every tenant, and so on."""
        queues = [list(queue)[:limit] for queue in self._queues.values()]
        for rank in range(max(map(len, queues), default=0)):
            for queue in queues:
                if rank < len(queue) and limit > 0:
                    limit -= 1
                    yield queue[rank]
