"""Which sites hold the KV cache of a prompt's beginning: an index of prompt blocks, of bounded size."""

import itertools
import os
from collections.abc import Mapping, Sequence

BLOCK_BYTES = 1024
"""A shorter beginning saves too little prefill to decide anything."""
TOKENS_PER_BLOCK = BLOCK_BYTES // 4
MAX_SITES = 4
"""Remembered per block, the latest first. What more sites hold, such as a system prompt, decides nothing."""

_SALT = os.urandom(16)
"""Of this process: nobody outside can make prompts whose blocks collide."""


def hash_blocks(seed: bytes, prompt: bytes, block_bytes: int = BLOCK_BYTES, max_blocks: int = 128) -> tuple[int, ...]:
    """Each whole block's hash covers all before it, so that equal hashes mean equal beginnings. `seed` keeps apart
    what shares no cache: models, tenants."""
    blocks = []
    chained = hash((_SALT, seed))
    for start in range(0, min(len(prompt) // block_bytes, max_blocks) * block_bytes, block_bytes):
        chained = hash((chained, prompt[start : start + block_bytes]))
        blocks.append(chained)
    return tuple(blocks)


class Prefixes:
    """At most `max_blocks` blocks and as many sessions, each about 150 bytes; the least recently learned go first, in
    halves: a generation that is full becomes the old one, and the former old one is dropped."""

    def __init__(self, max_blocks: int):
        self._half = max_blocks // 2
        self._young: dict[int, tuple[int, ...]] = {}
        self._old: dict[int, tuple[int, ...]] = {}
        self._young_sessions: dict[int, tuple[int, int]] = {}
        self._old_sessions: dict[int, tuple[int, int]] = {}
        self._tokens = itertools.count()
        self._token_of: dict[str, int] = {}
        self._site_of: dict[int, str] = {}
        self._shared: dict[tuple[int, ...], tuple[int, ...]] = {}

    def match(self, blocks: Sequence[int]) -> Mapping[str, int]:
        """Cached blocks per site, counted from the start. Exact for the sites with most of them, else a lower bound."""
        young, old = self._young, self._old
        if not blocks or not (blocks[0] in young or blocks[0] in old):
            return {}
        known, unknown = 1, len(blocks) + 1
        while unknown - known > 1:
            middle = (known + unknown) // 2
            block = blocks[middle - 1]
            if block in young or block in old:
                known = middle
            else:
                unknown = middle
        found: dict[str, int] = {}
        while known:
            for token in self._sites(blocks[known - 1]):
                site = self._site_of.get(token)
                if site is not None and site not in found:
                    found[site] = known
            known //= 2
        return found

    def cached_tokens(self, blocks: Sequence[int], session: int | None) -> Mapping[str, int]:
        """Tokens of the prompt per site, by blocks or by session, whichever says more."""
        found = {site: count * TOKENS_PER_BLOCK for site, count in self.match(blocks).items()}
        if session is not None:
            token, tokens = self._young_sessions.get(session) or self._old_sessions.get(session) or (-1, 0)
            site = self._site_of.get(token)
            if site is not None:
                found[site] = max(found.get(site, 0), tokens)
        return found

    def learn(self, blocks: Sequence[int], site: str, session: int | None = None, prompt_tokens: int = 0) -> None:
        """The site has read this prompt."""
        if not self._half:
            return
        token = self._token(site)
        for block in blocks:
            others = self._sites(block)
            if others[:1] != (token,):
                latest = (token, *(other for other in others if other != token))[:MAX_SITES]
                others = self._shared.setdefault(latest, latest)
            self._young[block] = others
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
            self._shared = {}
        if session is not None:
            self._young_sessions[session] = (token, prompt_tokens)
            if len(self._young_sessions) >= self._half:
                self._old_sessions, self._young_sessions = self._young_sessions, {}

    def forget(self, site: str) -> None:
        """The site's caches are gone."""
        token = self._token_of.pop(site, None)
        if token is not None:
            del self._site_of[token]

    def _sites(self, block: int) -> tuple[int, ...]:
        return self._young.get(block) or self._old.get(block) or ()

    def _token(self, site: str) -> int:
        """A number for the site; a new one after `forget`, so that nothing need be searched."""
        token = self._token_of.get(site)
        if token is None:
            token = self._token_of[site] = next(self._tokens)
            self._site_of[token] = site
        return token
