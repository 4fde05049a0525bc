"""Files of a remote source in the home store before their release has a name, which only all of their bytes give it.

incoming/<of the source's content>/bytes/<path>   a whole file
incoming/<of the source's content>/files/<path>   its digests, written after it: who starts again skips it
"""

import hashlib
import json
import threading
from collections.abc import Mapping

from blake3 import blake3
from pydantic import ValidationError

from weights.copying.deliver import Terms
from weights.errors import SourceError
from weights.manifest import MAX_BYTES, File, Part, digest_of
from weights.parallel import for_each
from weights.releases.registry import read_object
from weights.sources.source import Source, SourceFile, Stretch, read_stretch
from weights.store import Store, Upload

INCOMING = "incoming/"


class Staging:
    """Where the files of one source lie in one store until they are part of a release."""

    def __init__(self, source: Source, store: Store, site: str, terms: Terms) -> None:
        self._source = source
        self._store = store
        self._site = site
        self._terms = terms
        self._prefix = f"{INCOMING}{_fingerprint(source)}/"

    def fill(self, known: Mapping[str, File]) -> tuple[File, ...]:
        """The source's files; each is here now, but for those that equal the `known` one of their path.

        Raises SourceError and StoreError; what is whole then stays.
        """
        held = {item.key: item.size for item in self._store.objects(self._prefix)}

        def bring(file: SourceFile) -> File:
            if held.get(self._key(file.path)) == file.size and (staged := self._staged(file)):
                return staged
            self._terms.progress.begin(self._site, file.size)
            twin = known.get(file.path)
            if twin and twin.size == file.size and self._equals(twin):
                self._terms.progress.advance(self._site, file.size)
                return twin
            return self._stream(file)

        return tuple(for_each(bring, self._source.files, self._terms.lanes.count))

    def keys(self) -> dict[str, str]:
        """Where the bytes of each file are, by path."""
        return {file.path: self._key(file.path) for file in self._source.files}

    def clear(self) -> None:
        """Removes what is here."""
        for unfinished in self._store.unfinished(self._prefix):
            self._store.abort(unfinished)
        keys = [item.key for item in self._store.objects(self._prefix)]
        for_each(self._store.delete, keys, self._terms.lanes.count)

    def _staged(self, file: SourceFile) -> File | None:
        """As an earlier run noted it."""
        found = read_object(self._store, self._note(file.path), MAX_BYTES)
        try:
            staged = File.model_validate_json(found[1]) if found else None
        except ValidationError:
            return None
        return staged if staged and (staged.path, staged.size) == (file.path, file.size) else None

    def _equals(self, twin: File) -> bool:
        """Whether the source's file has the same bytes. It is read as far as it has."""

        def compare(part: Part) -> None:
            if digest_of(self._read(twin.path, part.offset, part.length)) != part.digest:
                raise _Different

        try:
            self._terms.lanes.for_each(compare, twin.layout() if twin.size else ())
        except _Different:
            return False
        return True

    def _stream(self, file: SourceFile) -> File:
        """Through memory into the store: each part is read, digested and sent."""
        journal, url, key = self._terms.journal, self._store.url, self._key(file.path)
        if file.size:
            upload = self._store.upload(key, file.size, journal.token(url, key))
            journal.keep(url, key, upload.token)
            content = self._carry(file, upload)
            self._terms.pace.retried(upload.complete)
            journal.drop(url, key)
        else:
            content = file.digested(())
            self._terms.pace.retried(lambda: self._store.write(key, b""))
        note = content.model_dump_json().encode()
        self._terms.pace.retried(lambda: self._store.write(self._note(file.path), note))
        return content

    def _carry(self, file: SourceFile, upload: Upload) -> File:
        """All parts; those that landed in an earlier run are read once more, for their digests, but not sent."""
        landed, checksum, lanes = upload.landed(), _Checksum(), self._terms.lanes

        def carry(part: Stretch) -> str:
            try:
                content = self._read(file.path, part.offset, part.length)
                if file.sha256:
                    checksum.add(part.number, content)
                if part.number not in landed:
                    self._terms.pace.retried(lambda: upload.send(part.number, content))
            except BaseException:
                checksum.give_up()
                raise
            self._terms.progress.advance(self._site, part.length)
            return digest_of(content)

        parts = tuple(file.stretches())
        if upload.any_order:
            digests = lanes.for_each(carry, parts)
        else:
            (digests,) = lanes.for_each(lambda in_order: [carry(part) for part in in_order], [parts])
        if file.sha256 and file.sha256 != checksum.hexdigest():
            upload.abort()
            raise SourceError(
                f"{file.path} of {self._source.name} has the SHA-256 {checksum.hexdigest()}, stated is {file.sha256}: "
                "it was changed on its way, or is corrupt there; push it again"
            )
        return file.digested(digests)

    def _read(self, path: str, offset: int, length: int) -> bytes:
        return read_stretch(self._source, path, offset, length, self._terms.pace)

    def _key(self, path: str) -> str:
        return f"{self._prefix}bytes/{path}"

    def _note(self, path: str) -> str:
        return f"{self._prefix}files/{path}"


class _Different(Exception):
    """A file is not its twin."""


class _Checksum:
    """SHA-256 of parts that threads have in any order. Each waits for those before it, which have begun before it."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._next = 0
        self._turn = threading.Condition()
        self._given_up = False

    def add(self, number: int, content: bytes) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._given_up or self._next == number)
            self._sha256.update(content)
            self._next += 1
            self._turn.notify_all()

    def give_up(self) -> None:
        """Nobody waits any more for a part that failed."""
        with self._turn:
            self._given_up = True
            self._turn.notify_all()

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def _fingerprint(source: Source) -> str:
    content = [source.name, source.revision, [[file.path, file.size, file.sha256] for file in source.files]]
    return blake3(json.dumps(content).encode()).hexdigest(length=20)
