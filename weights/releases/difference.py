"""What one release has that another one lacks."""

from dataclasses import dataclass

from weights.manifest import File, Manifest


@dataclass(frozen=True)
class Difference:
    """Files of a release against another one's, by path; those that both have are the release's own."""

    new: tuple[File, ...]
    changed: tuple[File, ...]
    gone: tuple[File, ...]
    same: tuple[File, ...]
    size: int
    """Bytes of files whose content the other release has under no name."""


def difference(release: Manifest, other: Manifest) -> Difference:
    """Of `release` against `other`, which came before it as a rule."""
    before = {file.path: file.digest for file in other.files}
    files = sorted(release.files, key=lambda file: file.path)
    paths, known = {file.path for file in files}, set(before.values())
    return Difference(
        new=tuple(file for file in files if file.path not in before),
        changed=tuple(file for file in files if before.get(file.path, file.digest) != file.digest),
        gone=tuple(sorted((file for file in other.files if file.path not in paths), key=lambda file: file.path)),
        same=tuple(file for file in files if before.get(file.path) == file.digest),
        size=sum(file.size for file in files if file.digest not in known),
    )
