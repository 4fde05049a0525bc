"""Bounded memories of the last seconds: a mean and a maximum. Time never decreases: who sees it do so starts anew."""

from dataclasses import dataclass

SLOTS = 60
"""A window is kept in about this many pieces, however often it is added to."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The readings of one piece of time; `number` times the piece's length is when it began."""

    number: int
    total: float
    count: int


@dataclass(frozen=True, slots=True)
class Window:
    """Means over the last `span` seconds. Every piece of time weighs the same, however often it was read."""

    slots: tuple[Slot, ...] = ()

    def add(self, value: float, now: float, span_s: float, slot_s: float) -> "Window":
        number, slots = int(now // slot_s), self.slots
        if slots and slots[-1].number == number:
            last = slots[-1]
            return Window((*slots[:-1], Slot(number, last.total + value, last.count + 1)))
        oldest = number - span_s / slot_s
        return Window((*(slot for slot in slots if slot.number > oldest), Slot(number, value, 1)))

    def mean(self, now: float, span_s: float, slot_s: float) -> float | None:
        """None where nothing was read."""
        number = int(now // slot_s)
        oldest, total, count = number - span_s / slot_s, 0.0, 0
        for slot in reversed(self.slots):
            if slot.number <= oldest:
                break
            total += slot.total / slot.count
            count += 1
        return total / count if count else None


@dataclass(frozen=True, slots=True)
class Peaks:
    """The maximum over the last `span` seconds, kept as a falling staircase of (piece of time, value)."""

    steps: tuple[tuple[int, int], ...] = ()

    def add(self, value: int, now: float, span_s: float) -> "Peaks":
        """A value that a later one reaches is forgotten."""
        slot_s = max(span_s / SLOTS, 0.001)
        number, oldest = int(now // slot_s), int((now - span_s) // slot_s)
        kept = tuple(step for step in self.steps if step[0] >= oldest and step[1] > value)
        return Peaks(kept) if kept and kept[-1][0] == number else Peaks((*kept, (number, value)))

    @property
    def highest(self) -> int:
        """Of what the latest `add` kept; 0 when there is nothing."""
        return self.steps[0][1] if self.steps else 0
