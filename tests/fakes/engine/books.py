"""What the site sees, counted."""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.fakes.engine.faults import Fault, Received, Seen
from tests.fakes.engine.wire import Request

KEPT = 1000
BODY_LIMIT = 2**20


class Books:
    """Counts, and the latest requests."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        """Requests in the batch, by model."""
        self.waiting: Counter[str] = Counter()
        self.connections = 0
        self.forget()

    def forget(self) -> None:
        """All but what is the case now."""
        self._number = 0
        self._requests: OrderedDict[int, Received] = OrderedDict()
        self._paths: Counter[str] = Counter()
        self._left = self._tokens = self._state_readings = self._connections_opened = 0
        self._most_running = self.running.total()

    def open(self) -> int:
        """A connection; its number."""
        self.connections += 1
        self._connections_opened += 1
        return self._connections_opened

    def close(self) -> None:
        self.connections -= 1

    def read_state(self) -> None:
        self._state_readings += 1

    def receive(self, request: Request, connection: int, fault: Fault) -> int:
        """The request's number."""
        self._number += 1
        self._paths[request.path] += 1
        body = request.body[:BODY_LIMIT]
        self._requests[self._number] = Received(
            self._number, connection, request.method, request.path, request.headers, body, fault
        )
        if len(self._requests) > KEPT:
            self._requests.popitem(last=False)
        return self._number

    def begin(self, number: int, status: int) -> None:
        if received := self._requests.get(number):
            self._requests[number] = replace(received, status=status)

    def tally(self, number: int, tokens: int) -> None:
        self._tokens += tokens
        if tokens and (received := self._requests.get(number)):
            self._requests[number] = replace(received, tokens=received.tokens + tokens)

    def finish(self, number: int, outcome: str) -> None:
        self._left += outcome == "left"
        if received := self._requests.get(number):
            self._requests[number] = replace(received, outcome=outcome)

    @contextmanager
    def run(self, model: str) -> Iterator[None]:
        """A place in the batch."""
        self.running[model] += 1
        self._most_running = max(self._most_running, self.running.total())
        try:
            yield
        finally:
            self.running[model] -= 1

    def seen(self) -> Seen:
        return Seen(
            requests=tuple(self._requests.values()),
            paths=dict(self._paths),
            left=self._left,
            tokens=self._tokens,
            running=self.running.total(),
            waiting=self.waiting.total(),
            most_running=self._most_running,
            connections=self.connections,
            connections_opened=self._connections_opened,
            state_readings=self._state_readings,
        )
