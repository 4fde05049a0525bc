"""Rows of many requests in one run of the program, by Ray Serve's own batching."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from ray import serve

from serve_app.engine_report import EngineStats
from serve_app.tensors.errors import Broken, NoMemory, Unable
from serve_app.tensors.program import Program, Tensors

Failure = Unable | Broken | NoMemory


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """At most a batch, of one request."""

    inputs: Tensors

    @property
    def count(self) -> int:
        return len(self.inputs[0])

    @property
    def kind(self) -> tuple[tuple[int, ...], ...]:
        """Only rows of the same shapes go together."""
        return tuple(tuple(tensor.shape[1:]) for tensor in self.inputs)


class Batcher:
    """Waits at most `wait_s` for `max_rows` rows. One batch runs at a time, in a thread of its own."""

    def __init__(self, program: Program, max_rows: int, wait_s: float):
        self._program = program
        self._max_rows = max_rows
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: set[Rows] = set()
        self._running = 0
        self._broken: Broken | None = None
        batching = serve.batch(max_batch_size=max_rows, batch_wait_timeout_s=wait_s, batch_size_fn=_count)
        self._enqueue = batching(self._compute)

    @property
    def stats(self) -> EngineStats:
        """In rows, as `max_rows` is."""
        return EngineStats(running=self._running, waiting=_count(self._waiting))

    async def infer(self, inputs: Tensors) -> Tensors:
        """The outputs for these rows, however many. Raises Unable, Broken or NoMemory."""
        split = zip(*(torch.split(tensor, self._max_rows) for tensor in inputs), strict=True)
        pieces = [Rows(piece) for piece in split]
        self._waiting.update(pieces)
        try:
            outputs = await asyncio.gather(*(self._enqueue(piece) for piece in pieces))
        finally:
            # Of a client that left: what runs already goes on, and is counted there.
            self._waiting.difference_update(pieces)
        for output in outputs:
            if isinstance(output, Failure):
                raise output
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True)) if len(outputs) > 1 else outputs[0]

    def check(self) -> None:
        """Raises Broken when the program no longer works at all: the replica must be replaced."""
        if self._broken is not None:
            raise self._broken

    async def _compute(self, batch: list[Rows]) -> list[Tensors | Failure]:
        rows = _count(batch)
        self._waiting.difference_update(batch)
        self._running += rows
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._grouped, batch)
        finally:
            self._running -= rows
        self._broken = next((result for result in results if isinstance(result, Broken)), None)
        return results

    def _grouped(self, batch: Sequence[Rows]) -> list[Tensors | Failure]:
        groups: dict[tuple[tuple[int, ...], ...], list[Rows]] = defaultdict(list)
        for rows in batch:
            groups[rows.kind].append(rows)
        found: dict[Rows, Tensors | Failure] = {}
        for group in groups.values():
            found |= zip(group, self._ran(group), strict=True)
        return [found[rows] for rows in batch]

    def _ran(self, group: Sequence[Rows]) -> list[Tensors | Failure]:
        """A group that fails is run again one by one: nobody pays for a neighbour."""
        try:
            joined = tuple(torch.cat(tensors) for tensors in zip(*(rows.inputs for rows in group), strict=True))
            outputs = self._program.run(joined)
        except (Unable, NoMemory) as failure:
            return [failure] if len(group) == 1 else [each for rows in group for each in self._ran([rows])]
        except Broken as failure:
            return [failure] * len(group)
        counts = [rows.count for rows in group]
        return list(zip(*(torch.split(output, counts) for output in outputs), strict=True))


def _count(batch: Iterable[Rows]) -> int:
    return sum(rows.count for rows in batch)
