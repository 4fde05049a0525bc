"""One replica's engine: continuous batching with chunked prefill, as vLLM does it. Steps of an unchanging batch are
taken in one leap, whose length follows from the model: events are few, and the result is that of every single step."""

import heapq
import math
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import NamedTuple

from autoscaling.simulate.engine_model import EngineModel, pairs
from autoscaling.simulate.kv_cache import KvCache
from clusters.batching import BatchingSpec

ROUNDING = 1e-9
"""Of a step's time, which floats may get wrong."""


@dataclass(slots=True, eq=False)
class Sequence:
    """A request inside an engine. `tokens` are those to be read first: the prompt, and what was generated before."""

    tokens: int
    output_tokens: int
    """Still to be generated."""
    blocks: Items[int] = ()
    begun: bool = False
    """It has had its first token here."""
    cached: int = 0
    unread: int = 0
    """Tokens that prefill has not read."""
    number: int = 0
    """By order of admission."""
    ends_at_step: int = 0


class Progress(NamedTuple):
    """What one leap brought."""

    first_tokens: list[Sequence]
    finished: list[Sequence]


@dataclass(slots=True)
class _Leap:
    began: float
    steps: int
    batch: int
    context: int
    prefill: int
    prefill_s: float
    ends: float


class Engine:
    """`next_at` is when it has something to tell: call `advance` then, and look at `next_at` again. It changes with
    `add` as well. Times are seconds by the caller's clock and never go back."""

    def __init__(self, model: EngineModel, batching: BatchingSpec, block_tokens: int = 16):
        self.next_at = math.inf
        self.cache = KvCache(model.kv_tokens, block_tokens)
        self.preempted = 0
        self._model = model
        self._max_seqs = batching.max_num_seqs
        self._max_tokens = batching.max_num_batched_tokens
        self._waiting: deque[Sequence] = deque()
        self._reading: deque[Sequence] = deque()
        self._decoding: list[tuple[int, int, Sequence]] = []
        """A heap by the step with which each ends."""
        self._context = 0
        """Tokens of all that decode."""
        self._step = 0
        self._admitted = 0
        self._leap: _Leap | None = None
        self._busy_s = 0.0
        """Before the present leap."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._reading) + len(self._decoding)

    def busy_s(self, now: float) -> float:
        """Seconds until now in which it took steps."""
        return self._busy_s + (now - self._leap.began if self._leap else 0.0)

    def fits(self, tokens: int, output_tokens: int) -> bool:
        """Whether such a sequence could ever run."""
        return tokens + output_tokens <= self.cache.capacity

    def add(self, sequence: Sequence, now: float) -> None:
        """It must fit."""
        self._waiting.append(sequence)
        leap = self._leap
        if leap is None:
            self._begin(now)
        elif leap.steps > 1 and self.running < self._max_seqs:
            leap.steps = self._steps_until(leap, now)
            leap.ends = leap.began + self._leap_s(leap, leap.steps)
            self.next_at = leap.ends

    def advance(self) -> Progress:
        """To `next_at`. An idle engine has nothing to tell."""
        leap = self._leap
        if leap is None:
            return Progress([], [])
        self._busy_s += leap.ends - leap.began
        self._step += leap.steps
        grown = leap.steps * leap.batch
        self._context += grown
        self.cache.grow(grown)
        finished = self._finish()
        first_tokens = self._read(leap.prefill, finished) if leap.prefill else []
        self._begin(leap.ends)
        return Progress(first_tokens, finished)

    def drop(self, now: float) -> list[tuple[Sequence, int]]:
        """Everything is lost, also what was cached: the engine is as a new one. Returns each sequence with the tokens
        that were still to be generated."""
        if self._leap is not None and self._leap.batch:
            self._step += max(0, self._steps_until(self._leap, now) - 1)
        lost = [(sequence, sequence.output_tokens) for sequence in (*self._waiting, *self._reading)]
        lost += [(sequence, ends - self._step) for ends, _, sequence in self._decoding]
        self._waiting.clear()
        self._reading.clear()
        self._decoding.clear()
        self._context = 0
        self.cache = self.cache.emptied()
        self._busy_s = self.busy_s(now)
        self._leap, self.next_at = None, math.inf
        return lost

    def _begin(self, now: float) -> None:
        """The next leap, if there is anything to do."""
        self._make_room()
        admitted = self._admit()
        batch = len(self._decoding)
        prefill = min(max(self._max_tokens - batch, 1), sum(sequence.unread for sequence in self._reading))
        if prefill:
            steps = 1
        elif batch:
            steps = min(self._decoding[0][0] - self._step, self.cache.room // batch)
        else:
            self._leap, self.next_at = None, math.inf
            return
        attention = sum(pairs(sequence.tokens - sequence.unread, read) for sequence, read in self._reads(prefill))
        prefill_s = self._model.prefill_s(admitted, prefill, attention)
        leap = _Leap(now, steps, batch, self._context, prefill, prefill_s, now)
        leap.ends = self.next_at = now + self._leap_s(leap, steps)
        self._leap = leap

    def _make_room(self) -> None:
        """For one more token of each that decodes: the latest comers wait again, and are read anew."""
        while self._decoding and self.cache.room < len(self._decoding):
            latest = max(self._decoding, key=lambda entry: entry[2].number)
            self._decoding.remove(latest)
            heapq.heapify(self._decoding)
            ends, _, sequence = latest
            left = ends - self._step
            had = self._tokens_of(sequence, left)
            self.cache.release(sequence.blocks, had)
            self._context -= had
            sequence.tokens, sequence.output_tokens = had + 1, left
            self._waiting.appendleft(sequence)
            self.preempted += 1

    def _admit(self) -> int:
        """In order, while a step has tokens left, the batch a place, and the cache room. Returns how many."""
        before = self._admitted
        budget = self._max_tokens - len(self._decoding) - sum(sequence.unread for sequence in self._reading)
        while self._waiting and budget > 0 and self.running < self._max_seqs:
            sequence = self._waiting[0]
            # One token for each that decodes stays free, else somebody is thrown out at once.
            cached = self.cache.admit(sequence.blocks, sequence.tokens, spare=len(self._decoding))
            if cached is None:
                break
            self._waiting.popleft()
            sequence.cached, sequence.unread = cached, sequence.tokens - cached
            sequence.number = self._admitted = self._admitted + 1
            self._reading.append(sequence)
            budget -= sequence.unread
        return self._admitted - before

    def _reads(self, tokens: int) -> Iterator[tuple[Sequence, int]]:
        """Whose prompts a step reads that has so many tokens for them, and how much of each."""
        for sequence in self._reading:
            if not tokens:
                return
            read = min(tokens, sequence.unread)
            tokens -= read
            yield sequence, read

    def _read(self, tokens: int, finished: list[Sequence]) -> list[Sequence]:
        """Those that have their first token now."""
        begun = []
        for sequence, read in list(self._reads(tokens)):
            sequence.unread -= read
            if sequence.unread:
                break
            self._reading.popleft()
            if not sequence.begun:
                sequence.begun = True
                begun.append(sequence)
            if sequence.output_tokens == 1:
                self.cache.release(sequence.blocks, sequence.tokens)
                finished.append(sequence)
                continue
            sequence.ends_at_step = self._step + sequence.output_tokens - 1
            self._context += sequence.tokens
            heapq.heappush(self._decoding, (sequence.ends_at_step, sequence.number, sequence))
        return begun

    def _finish(self) -> list[Sequence]:
        finished = []
        while self._decoding and self._decoding[0][0] <= self._step:
            sequence = heapq.heappop(self._decoding)[2]
            had = self._tokens_of(sequence, 0)
            self.cache.release(sequence.blocks, had)
            self._context -= had
            finished.append(sequence)
        return finished

    @staticmethod
    def _tokens_of(sequence: Sequence, left: int) -> int:
        """In the cache: the newest token's keys and values come with the next step."""
        return sequence.tokens + sequence.output_tokens - 1 - left

    def _leap_s(self, leap: _Leap, steps: int) -> float:
        model = self._model
        grown = leap.batch * steps * (steps - 1) / 2
        return steps * model.decode_s(leap.batch, leap.context) + model.kv_token_s * grown + leap.prefill_s

    def _steps_until(self, leap: _Leap, now: float) -> int:
        """Steps of the leap that have begun by then."""
        elapsed = now - leap.began
        each = self._model.decode_s(leap.batch, leap.context)
        curve = self._model.kv_token_s * leap.batch / 2
        linear = each - curve
        # T(n) = curve * n^2 + linear * n, solved so that a curve of 0 does no harm.
        steps = 2 * elapsed / (linear + math.sqrt(linear * linear + 4 * curve * elapsed))
        return min(leap.steps, max(1, math.ceil(steps * (1 - ROUNDING))))
