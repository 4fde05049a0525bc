"""Notes about a placement or its site, left in its Ray cluster's key-value store: for another process, or for after a
restart."""

import logging
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
from ray.exceptions import RpcError
from ray.experimental.internal_kv import internal_kv_get_gcs_client

from autoscaling.forecast import History
from clusters.scaling import AutoscalingSpec

ORDER_LIFETIME_S = 5.0
"""Agents write orders every second,"""
WORD_LIFETIME_S = 10.0
"""and autoscalers a word twice a second."""
NAMESPACE = b"rayfleet"
TIMEOUT_S = 2


@dataclass(frozen=True, slots=True)
class Word:
    """From the autoscaler: its latest decision, at `at` seconds since the epoch."""

    target: int
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Order:
    """From the site agent: what the ingress and the planner told it. None means that they said nothing.

    `held` are requests at the ingress. The bounds in replicas narrow those of `fleet.yaml`. `number` differs from that
    of the order before.
    """

    number: float
    held: float | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """From the site agent: running streams may stay until then, in seconds since the epoch; None ends the draining."""

    until: float | None


Note = TypeVar("Note", History, Word, Order, Drain, AutoscalingSpec)
"""An AutoscalingSpec is left by who deploys the placement, for the autoscaler."""


class Renewed(Generic[Note]):
    """The latest note of a kind that is written anew all the time, until nobody does for `lifetime_s`. Who reads it
    times that by its own monotonic clock: those of nodes differ, and are set."""

    def __init__(self, lifetime_s: float):
        self._lifetime_s = lifetime_s
        self._note: Note | None = None
        self._since = 0.0

    def heed(self, note: Note | None, now: float) -> Note | None:
        """What counts now, having read `note`."""
        if note != self._note:
            self._note, self._since = note, now
        return self.current(now)

    def current(self, now: float) -> Note | None:
        return self._note if now - self._since <= self._lifetime_s else None


def write(application: str, note: Note) -> None:
    """Replaces the note of this kind. One that can't be left is missed by nobody for long: the next is on its way."""
    if (store := internal_kv_get_gcs_client()) is None:
        return
    try:
        encoded = msgspec.json.encode(note, enc_hook=AutoscalingSpec.model_dump)
        store.internal_kv_put(_key(application, type(note)), encoded, True, NAMESPACE, TIMEOUT_S)
    except RpcError as error:
        _log(f"can't leave a {type(note).__name__} for {application}: {error}")


def read(application: str, kind: type[Note]) -> Note | None:
    """None where there is none, or none that this version understands."""
    if (store := internal_kv_get_gcs_client()) is None:
        return None
    try:
        written = store.internal_kv_get(_key(application, kind), NAMESPACE, TIMEOUT_S)
        return None if written is None else msgspec.json.decode(written, type=kind, dec_hook=_spec)
    except (RpcError, msgspec.DecodeError) as error:
        _log(f"can't read the {kind.__name__} of {application}: {error}")
        return None


def _spec(kind: type[AutoscalingSpec], plain: object) -> AutoscalingSpec:
    return kind.model_validate(plain)


def _key(application: str, kind: type) -> bytes:
    return f"{application}:{kind.__name__}".encode()


def _log(message: str) -> None:
    logging.getLogger("ray.serve").warning("rayfleet %s", message)
