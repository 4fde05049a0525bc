"""Files of a release on their way, part by part, and no part believed before it was hashed."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

from clusters.storage import Verify
from weights.copying.journal import Journal
from weights.copying.pace import Pace
from weights.errors import Corrupt, StoreError
from weights.manifest import File, Part, digest_of
from weights.parallel import Lanes
from weights.store import Store, Upload

REREADS = 3
"""Wrong bytes may have been changed on their way: only what is wrong every time is wrong where it lies."""
SAMPLE_EVERY = 16


class Origin(Protocol):
    """Where the parts of a release come from."""

    def read(self, file: File, part: Part) -> bytes:
        """The part, verified. Raises Corrupt."""
        ...


@dataclass(frozen=True)
class StoredFiles:
    """The files of a release as a store has them, `prefix` being the release's."""

    store: Store
    prefix: str
    pace: Pace

    def read(self, file: File, part: Part) -> bytes:
        return read_part(self.store, self.prefix + file.path, file, part, self.pace)


def read_part(store: Store, key: str, file: File, part: Part, pace: Pace) -> bytes:
    """One part of an object, verified. Raises Corrupt when it is wrong each time."""
    if not part.length:
        return b""
    content = BytesIO()

    def read() -> None:
        nonlocal content
        # Not joined in the end: for a moment that would take twice the memory.
        content = BytesIO()
        for piece in pace.pieces(store.read(key, part.offset, part.length)):
            content.write(piece)

    for _ in range(REREADS):
        pace.retried(read)
        if digest_of(content.getbuffer()) == part.digest:
            return content.getvalue()
    raise Corrupt(file.path, store.url, f"part {part.number} is not what the manifest says")


def send(
    file: File,
    origin: Origin,
    store: Store,
    key: str,
    lanes: Lanes,
    pace: Pace,
    journal: Journal,
    moved: Callable[[int], None],
) -> int:
    """Stores a file as an object, going on where an earlier run was cut short; returns the bytes sent."""
    if not file.size:
        pace.retried(lambda: store.write(key, b""))
        return 0
    upload = store.upload(key, file.size, journal.token(store.url, key))
    journal.keep(store.url, key, upload.token)
    landed = upload.landed()
    layout = tuple(file.layout())
    moved(sum(part.length for part in layout if part.number in landed))
    missing = [part for part in layout if part.number not in landed]

    def send_part(part: Part) -> None:
        content = origin.read(file, part)
        pace.retried(lambda: upload.send(part.number, content))
        moved(part.length)

    def send_all(parts: Iterable[Part]) -> None:
        for part in parts:
            send_part(part)

    try:
        if upload.any_order:
            lanes.for_each(send_part, missing)
        else:
            lanes.for_each(send_all, [missing])
        pace.retried(upload.complete)
    except StoreError as error:
        if error.url == store.url:
            _give_up(upload, journal, store, key)
        raise
    journal.drop(store.url, key)
    return sum(part.length for part in missing)


def _give_up(upload: Upload, journal: Journal, store: Store, key: str) -> None:
    """A store that can be reached but will not have a part, or the whole, may hold wrong bytes of it: the next attempt
    begins anew. One that can't be reached keeps what landed.
    """
    try:
        upload.abort()
    except StoreError:
        return
    journal.drop(store.url, key)


def check(
    file: File, store: Store, key: str, how: Verify, lanes: Lanes, pace: Pace, moved: Callable[[int], None]
) -> None:
    """Reads an object back, as much of it as `how` says. Raises Corrupt, also when it is shorter, longer or absent."""
    stored = store.find(key)
    if stored is None or stored.size != file.size:
        raise Corrupt(file.path, store.url, f"it has {stored.size if stored else 'no'} bytes instead of {file.size}")

    def check_part(part: Part) -> None:
        read_part(store, key, file, part, pace)
        moved(part.length)

    chosen = tuple(selected(file, how))
    lanes.for_each(check_part, chosen)
    moved(file.size - sum(part.length for part in chosen))


def selected(file: File, how: Verify) -> Iterator[Part]:
    """The parts that are read back."""
    layout = tuple(file.layout())
    if how is Verify.FULL:
        yield from layout
    elif how is Verify.SAMPLED:
        yield from (part for part in layout if part.number % SAMPLE_EVERY == 0 or part is layout[-1])
