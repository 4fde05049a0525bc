"""One engine's KV cache, in tokens: what running sequences hold, and prefixes of others while there is room."""

from collections.abc import Sequence


class KvCache:
    """Blocks of a known prefix are shared by all that begin with them, and stay after the last of these, least recently
    used first to go. What is no such block belongs to one sequence."""

    def __init__(self, capacity: int, block_tokens: int):
        self.capacity = capacity
        self.used = 0
        """By running sequences; cached blocks that nobody uses give way."""
        self._block_tokens = block_tokens
        self._users: dict[int, int] = {}
        """Of blocks in use."""
        self._idle: dict[int, None] = {}
        """Blocks that nobody uses, the least recently used first."""

    def emptied(self) -> "KvCache":
        return KvCache(self.capacity, self._block_tokens)

    @property
    def usage(self) -> float:
        """Share in use, 0 to 1."""
        return self.used / self.capacity

    @property
    def room(self) -> int:
        """Tokens that running sequences may yet have."""
        return self.capacity - self.used

    def admit(self, blocks: Sequence[int], tokens: int, spare: int = 0) -> int | None:
        """Take room for a sequence of `tokens` that begins with whole `blocks`. Returns how many tokens were cached, at
        most all but one; None where there is not room for it and `spare` tokens more."""
        needed = tokens - self._block_tokens * sum(block in self._users for block in blocks)
        if needed + spare > self.room:
            return None
        cached = self._block_tokens * self._cached(blocks)
        for block in blocks:
            self._idle.pop(block, None)
            self._users[block] = self._users.get(block, 0) + 1
        self.used += needed
        self._trim()
        return min(cached, tokens - 1)

    def grow(self, tokens: int) -> None:
        """Running sequences have so many more. There must be room."""
        self.used += tokens
        self._trim()

    def release(self, blocks: Sequence[int], tokens: int) -> None:
        """A sequence that was admitted with `blocks`, and has `tokens` now, is over."""
        self.used -= tokens - len(blocks) * self._block_tokens
        for block in blocks:
            self._users[block] -= 1
            if not self._users[block]:
                del self._users[block]
                self.used -= self._block_tokens
                self._idle[block] = None
        self._trim()

    def _cached(self, blocks: Sequence[int]) -> int:
        """Leading blocks that are there."""
        for count, block in enumerate(blocks):
            if block not in self._users and block not in self._idle:
                return count
        return len(blocks)

    def _trim(self) -> None:
        while len(self._idle) * self._block_tokens > self.room:
            del self._idle[next(iter(self._idle))]
