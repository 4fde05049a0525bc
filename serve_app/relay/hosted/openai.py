"""OpenAI-compatible targets: the request as it came, under the target's own name of the model."""

import json
import re
from collections.abc import Iterator

from serve_app.relay.hosted.untranslatable import Untranslatable

DECODER = json.JSONDecoder()
COLON = re.compile(r"\s*:\s*")
BEFORE_FIRST = re.compile(r"\s*\{\s*")
BEFORE_NEXT = re.compile(r"\s*,\s*")


def rename_model(body: bytes, name: str) -> bytes:
    """Replaces the value of the outermost `model`, and not a byte of the rest. Raises Untranslatable."""
    try:
        text = body.decode()
        pieces, rest = [], 0
        for key, start, end in _members(text):
            if key == "model":
                pieces += [text[rest:start], json.dumps(name)]
                rest = end
    except (ValueError, RecursionError) as error:
        raise Untranslatable("the body is not a JSON object") from error
    if not pieces:
        raise Untranslatable("the body is not a JSON object with a model")
    return "".join([*pieces, text[rest:]]).encode()


def _members(text: str) -> Iterator[tuple[str, int, int]]:
    """Of the outermost object: each key, and where its value begins and ends. Raises ValueError where it is none."""
    before = BEFORE_FIRST.match(text)
    while before is not None:
        key, at = DECODER.raw_decode(text, before.end())
        colon = COLON.match(text, at)
        if colon is None:
            raise ValueError("no colon behind a key")
        _, end = DECODER.raw_decode(text, colon.end())
        yield key, colon.end(), end
        before = BEFORE_NEXT.match(text, end)
