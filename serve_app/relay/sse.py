"""Server-sent events, as far as a relay must know them."""

import re

MAX_EVENT_BYTES = 2**22
DONE = b"data: [DONE]"
ERROR = b'data: {"error"'
IDS = re.compile(rb'token_ids":\[[0-9, ]*\]')
"""Token ids of an engine's event. Inside of a JSON string the quote would be escaped: it never matches text."""
NO_IDS = b'token_ids":null'


def end_of_events(data: bytes) -> int:
    """Where the last whole event of `data` ends; 0 when there is none."""
    plain, network = data.rfind(b"\n\n"), data.rfind(b"\r\n\r\n")
    return max(plain + 2 if plain >= 0 else 0, network + 4 if network >= 0 else 0)


def first_fault(data: bytes) -> tuple[int, str] | None:
    """Where the first event begins that is the engine's error, or is no event at all, and what is wrong with it.
    `data` holds whole events."""
    at = 0
    for event in data.split(b"\n\n"):
        if event.startswith(ERROR):
            return at, "the engine reported an error"
        if event.startswith(b"data: ") and not event.endswith((b"}", b"[DONE]")):
            return at, "a malformed event"
        if event and not event.startswith((b"data:", b":", b"event:", b"id:", b"retry:")):
            return at, "a malformed event"
        at += len(event) + 2
    return None
