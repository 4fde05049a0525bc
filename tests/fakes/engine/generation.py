"""The tiny language model: the next token is a hash of all tokens so far, so that any lost or repeated one shows."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.fakes.engine.tokens import (
    CHARACTERS,
    EOS,
    FIRST_BYTE,
    FIRST_HALF,
    FIRST_PIECE,
    FIRST_WORD,
    HALVES,
    PIECES,
    VOCABULARY,
    WORDS,
    DecodeStream,
    continuations,
)

SHORT = tuple(FIRST_BYTE + character.encode()[0] for character in CHARACTERS if len(character.encode()) == 2)
CANONICAL = (*range(FIRST_WORD, FIRST_WORD + len(WORDS)), *tuple(range(FIRST_HALF, FIRST_HALF + len(HALVES))) * 4)
SAID = (*CANONICAL, *tuple(range(FIRST_PIECE, FIRST_PIECE + len(PIECES))) * 4, *SHORT)
"""What it chooses from: now and then a character in parts, or a piece that the tokenizer would not have split off."""
EOS_EVERY = 400
"""Tokens between two ends of the text, on average."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to say it."""

    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    seed: int | None = None
    """None: greedy."""
    script: tuple[int, ...] | None = None
    """Tokens that a grammar leaves no choice about, and then the end."""
    filter_after: int | None = None
    """Tokens after which a content filter ends it."""
    canonical: bool = False
    tokens_per_step: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of the engine adds to one sequence."""

    tokens: tuple[int, ...]
    text: str
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class Chain:
    """A hash of the tokens so far. A seeded one also depends on how many were drawn here, as a sampler's state does."""

    def __init__(self, prompt: Sequence[int], seed: int | None):
        self._seed = seed
        self._drawn = 0
        self._digest = b""
        for token in prompt:
            self.add(token)

    def add(self, token: int) -> None:
        self._digest = hashlib.blake2b(self._digest + token.to_bytes(4, "big"), digest_size=16).digest()

    def draw(self) -> int:
        self._drawn += 1
        if self._seed is None:
            return int.from_bytes(self._digest, "big")
        drawn = b"%d %d" % (self._seed, self._drawn)
        return int.from_bytes(hashlib.blake2b(self._digest + drawn, digest_size=16).digest(), "big")


def generate(prompt: Sequence[int], sampling: Sampling) -> Iterator[Step]:
    """Steps up to the one with a finish reason."""
    says = _say(prompt, sampling)
    text = _Text(prompt, sampling)
    count = 0
    while True:
        tokens: list[int] = []
        finish_reason: str | None = None
        stop_reason: int | str | None = None
        while len(tokens) < sampling.tokens_per_step and finish_reason is None:
            tokens.append(next(says))
            finish_reason, stop_reason = _finish(tokens[-1], count + len(tokens), sampling)
        count += len(tokens)
        if stop_string := text.add(tokens, ended_by_token=finish_reason == "stop"):
            finish_reason, stop_reason = "stop", stop_string
        yield Step(tuple(tokens), text.take(finished=finish_reason is not None), finish_reason, stop_reason)
        if finish_reason is not None:
            return


def _say(prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
    if sampling.script is not None:
        yield from (*sampling.script, EOS)
        return
    chain = Chain(prompt, sampling.seed)
    said = list(prompt[-8:])
    vocabulary = CANONICAL if sampling.canonical else SAID
    for count in range(sampling.max_tokens):
        draw = chain.draw()
        if following := continuations(said[-4:]):
            token = following[draw % len(following)]
        elif (
            draw % EOS_EVERY == 0 and count >= sampling.min_tokens and not (sampling.canonical and sampling.ignore_eos)
        ):
            token = EOS
        else:
            token = vocabulary[draw // EOS_EVERY % len(vocabulary)]
        chain.add(token)
        said.append(token)
        yield token


def _finish(token: int, count: int, sampling: Sampling) -> tuple[str | None, int | None]:
    if sampling.filter_after is not None and count >= sampling.filter_after:
        return "content_filter", None
    if token == EOS and (sampling.script is not None or (not sampling.ignore_eos and count > sampling.min_tokens)):
        return "stop", None
    if token in sampling.stop_token_ids and count > sampling.min_tokens:
        return "stop", token
    return ("length" if count >= sampling.max_tokens else None), None


class _Text:
    """The text of one answer, with vLLM's rule for stop strings: what may yet become one is held back."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling):
        self._stream = DecodeStream(prompt)
        self._sampling = sampling
        self._text = ""
        self._count = 0
        self._taken = 0
        longest = max(map(len, sampling.stop), default=1)
        self._held = 0 if sampling.include_stop else longest - 1

    def add(self, tokens: Sequence[int], *, ended_by_token: bool) -> str | None:
        """The stop string that these tokens complete."""
        sampling, checked = self._sampling, len(self._text)
        silent = ended_by_token and not sampling.include_stop
        for token in tokens[:-1] if silent else tokens:
            self._text += self._stream.step(token)
            self._count += 1
            if self._count <= sampling.min_tokens:
                checked = len(self._text)
        self._count += silent
        if self._count <= sampling.min_tokens or len(self._text) == checked:
            return None
        found = [(at + len(stop), at, stop) for stop in sampling.stop if (at := self._find(stop, checked)) >= 0]
        if not found:
            return None
        end, start, stop = min(found, key=lambda match: match[0])
        self._text = self._text[: end if sampling.include_stop else start]
        return stop

    def take(self, *, finished: bool) -> str:
        """What may be shown since the last time."""
        shown = len(self._text) - (0 if finished else self._held)
        text = self._text[self._taken : shown] if shown > self._taken else ""
        self._taken = max(self._taken, shown)
        return text

    def _find(self, stop: str, checked: int) -> int:
        return self._text.find(stop, max(0, checked + 1 - len(stop)))


def logprob(token: int) -> float:
    """Of a token that was chosen, or of one that was not."""
    return -0.125 - token % 31 / 8


def alternatives(token: int, count: int) -> tuple[int, ...]:
    """The chosen token first."""
    return tuple((token + offset) % VOCABULARY for offset in range(count))
