"""Server-sent events, as far as a relay must know them."""

import re

MAX_EVENT_BYTES = 2**22
MALFORMED = "a malformed event"
DONE = b"data: [DONE]"
ERROR = b'data: {"error"'
IDS = re.compile(rb'token_ids":\[([0-9, ]*)\]')
"""Token ids of an engine's event. Inside of a JSON string the quote would be escaped: it never matches text."""
NO_IDS = b'token_ids":null'


def end_of_events(data: bytes) -> int:
    """Where the last whole event of `data` ends; 0 when there is none."""
    plain, network = data.rfind(b"\n\n"), data.rfind(b"\r\n\r\n")
    return max(plain + 2 if plain >= 0 else 0, network + 4 if network >= 0 else 0)


def first_fault(data: bytes) -> tuple[int, str] | None:
    """Where the first event begins that is the engine's error, or is no event at all, and what is wrong with it.
    `data` holds whole events."""
    events = data.count(b"\n\n")
    begins = data.count(b"\n\ndata: ") + data.startswith(b"data: ")
    ends = data.count(b"}\n\n") + data.count(DONE + b"\n\n")
    if begins == ends == events and ERROR not in data:
        return None  # as nearly always
    at = 0
    for event in data.split(b"\n\n"):
        if event.startswith(ERROR):
            return at, "the engine reported an error"
        if event.startswith(b"data: ") and not event.endswith((b"}", b"[DONE]")):
            return at, MALFORMED
        if event and not event.startswith((b"data:", b":", b"event:", b"id:", b"retry:")):
            return at, MALFORMED
        at += len(event) + 2
    return None
