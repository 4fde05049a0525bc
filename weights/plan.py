"""What a store lacks of a release: a pure difference."""

from collections.abc import Iterable
from dataclasses import dataclass

from weights.manifest import MANIFEST, File, Manifest
from weights.store import Stored


@dataclass(frozen=True)
class Plan:
    """What makes a release exist at a store, each file in at most one list."""

    copy: tuple[File, ...]
    """Absent there, or of another size."""
    verify: tuple[File, ...]
    """There with the right size, but no manifest vouches for the bytes: an earlier run was cut short."""
    publish: bool
    """The manifest is missing, so it is written once all the files are right."""

    @property
    def size(self) -> int:
        """Bytes that will have been read back from the store when the plan is done."""
        return sum(file.size for file in self.copy + self.verify)


def plan(manifest: Manifest, stored: Iterable[Stored]) -> Plan:
    """`stored` is what `registry.stored_files` tells of the release at the store."""
    there = {item.key: item.size for item in stored}
    vouched = MANIFEST in there
    held = [file for file in manifest.files if there.get(file.path) == file.size]
    return Plan(
        copy=tuple(file for file in manifest.files if there.get(file.path) != file.size),
        verify=() if vouched else tuple(held),
        publish=not vouched,
    )
