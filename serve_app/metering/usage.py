"""Token counts out of an answer's bytes. Only the `usage` object is parsed, in whichever of three shapes it comes."""

import re
from typing import Annotated

import msgspec

KEY = b'"usage"'
WHOLE_BYTES = 2**16
"""A longer answer is not parsed for it,"""
TAIL_BYTES = 2**13
"""but searched from the end."""
LONGEST = 4096
"""Bytes of a `usage` object that is looked at."""

OBJECT = re.compile(rb"\s*+:\s*+(\{[^{}]*+(?:\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\}[^{}]*+)*+\})")
"""A colon and an object, nested up to twice. Possessive: no input makes it slow."""

Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**48)]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one request."""

    input: int = 0
    """Of the prompt, with the cached ones."""
    output: int = 0
    cached: int = 0


class _Details(msgspec.Struct):
    cached_tokens: Tokens | None = None


class _Told(msgspec.Struct):
    """What OpenAI's completions, OpenAI's responses and Anthropic's messages say, side by side."""

    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None


class _Answer(msgspec.Struct):
    usage: _Told | None = None


_DECODER = msgspec.json.Decoder(_Told)
_ANSWER_DECODER = msgspec.json.Decoder(_Answer)


def whole_usage(answer: bytes) -> Usage | None:
    """The one in a whole JSON answer. None when there is none to read."""
    if len(answer) > WHOLE_BYTES:
        return last_usage(answer[-TAIL_BYTES:])
    try:
        told = _ANSWER_DECODER.decode(answer).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if told is None else _usage_of(told)


def last_usage(data: bytes) -> Usage | None:
    """The last one in a whole JSON answer, or in the last bytes of a stream. None when there is none to read.

    Engines put it behind everything that a client could have had a say in.
    """
    at = len(data)
    while (at := data.rfind(KEY, 0, at)) >= 0:
        if data[at - 1 : at] != b"\\" and (usage := _read(data, at + len(KEY))):
            return usage
    return None


def _read(data: bytes, at: int) -> Usage | None:
    found = OBJECT.match(data, at, at + LONGEST)
    if found is None:
        return None
    try:
        return _usage_of(_DECODER.decode(found[1]))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _usage_of(told: _Told) -> Usage | None:
    if told.prompt_tokens is not None:
        return _usage(told.prompt_tokens, told.completion_tokens, told.prompt_tokens_details)
    if told.input_tokens is None and told.output_tokens is None:
        return None
    if told.input_tokens_details is not None:
        return _usage(told.input_tokens or 0, told.output_tokens, told.input_tokens_details)
    # Anthropic counts what was read from a cache, or written to one, apart from the rest of the prompt.
    cached = told.cache_read_input_tokens or 0
    whole = (told.input_tokens or 0) + cached + (told.cache_creation_input_tokens or 0)
    return Usage(whole, told.output_tokens or 0, cached)


def _usage(prompt: int, answer: int | None, details: _Details | None) -> Usage:
    cached = details.cached_tokens if details and details.cached_tokens else 0
    return Usage(prompt, answer or 0, min(cached, prompt))
