"""Conditional writes: whether a store honours them is found out, never assumed; whether one took place after all."""

import threading
from contextlib import suppress
from secrets import token_hex

from weights.errors import StoreError
from weights.store import Store


class Conditions:
    """Of one store; it is asked once, by up to four small writes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._honoured: bool | None = None

    def honoured(self, store: Store) -> bool:
        """Raises StoreError."""
        with self._lock:
            if self._honoured is None:
                self._honoured = _probe(store)
            return self._honoured


def holds(store: Store, key: str, content: bytes) -> bool:
    """Whether an object has just this content: a write whose answer was lost may have met its own condition."""
    found = store.find(key)
    if found is None or found.size != len(content):
        return False
    return not content or b"".join(store.read(key, 0, len(content))) == content


def _probe(store: Store) -> bool:
    key = f".probe-{token_hex(8)}"
    try:
        honoured = _keeps_to_conditions(store, key)
    except StoreError:
        with suppress(StoreError):
            store.delete(key)
        raise
    store.delete(key)
    return honoured


def _keeps_to_conditions(store: Store, key: str) -> bool:
    if not store.write_if(key, b"first", None) or store.write_if(key, b"second", None):
        return False
    found = store.find(key)
    return (
        found is not None
        and store.write_if(key, b"third", found.version)
        and not store.write_if(key, b"fourth", found.version)
    )
