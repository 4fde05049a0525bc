"""A manifest identifies bytes, and one that could do harm is refused."""

import json
from datetime import timedelta
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.weights.releases import NOW
from weights.errors import InvalidManifest
from weights.manifest import MAX_BYTES, PART, File, Manifest, digest_of, digest_of_parts, manifest_of

ONE = File(path="a/one", size=3, digest="0" * 64)
TWO = File(path="two", size=0, digest="f" * 64)


def manifest(*files: File) -> Manifest:
    return manifest_of("tiny", files or (ONE, TWO), "a source", None, NOW)


def with_path(path: str) -> bytes:
    text = json.loads(manifest().to_json())
    text["files"][0]["path"] = path
    return json.dumps(text).encode()


def test_only_names_and_bytes_are_its_identity() -> None:
    later = manifest_of("tiny", (TWO, ONE), "another source", "abc", NOW + timedelta(days=1))
    assert later.digest == manifest().digest
    assert later.release == manifest().digest[:12]


@pytest.mark.parametrize("other", [{"path": "a/other"}, {"size": 4}, {"digest": "1" * 64}])
def test_another_name_or_other_bytes_are_another_release(other: dict[str, object]) -> None:
    assert manifest(ONE.model_copy(update=other), TWO).release != manifest().release


def test_the_identity_never_changes() -> None:
    # Releases that exist are found by it.
    assert manifest().release == "fa4e1e32bd70"


def test_it_survives_its_own_text() -> None:
    assert Manifest.from_json(manifest().to_json()) == manifest()
    assert Manifest.from_json(manifest().to_json()).to_json() == manifest().to_json()


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../up", "a/../../up", "a//b", "a/", "./a", "a\\b", "a\0b", "a\nb", "manifest.json", "é" * 257],
)
def test_paths_that_could_leave_the_release_are_refused(path: str) -> None:
    with pytest.raises(InvalidManifest, match=r"files\.0\.path"):
        Manifest.from_json(with_path(path))


@given(st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from("./\\"), max_size=20))
def test_every_accepted_path_stays_inside(path: str) -> None:
    try:
        Manifest.from_json(with_path(path))
    except InvalidManifest:
        return
    parts = PurePosixPath(path).parts
    assert not path.startswith("/")
    assert ".." not in parts
    assert "/".join(parts) == path


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", -1),
        ("size", 1.5),
        ("size", "3"),
        ("size", True),
        ("digest", "0" * 63),
        ("digest", "A" * 64),
        ("digest", "0" * 63 + "\n"),
        ("extra", 1),
    ],
)
def test_wrong_fields_are_refused(field: str, value: object) -> None:
    text = json.loads(manifest().to_json())
    text["files"][0][field] = value
    with pytest.raises(InvalidManifest, match=rf"files\.0\.{field}"):
        Manifest.from_json(json.dumps(text).encode())


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b"), ("a/b/c", "a/b", "a.b")])
def test_files_that_exclude_each_other_are_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(InvalidManifest, match="twice, or is a file and a directory"):
        manifest(*(File(path=path, size=1, digest="0" * 64) for path in paths))


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"version": 1}', b" " * (MAX_BYTES + 1)]
)
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidManifest):
        Manifest.from_json(text)


SIZE = 2 * PART + 1
PARTS = tuple(digest_of(bytes([n])) for n in range(3))


def test_the_parts_of_a_large_file_make_its_digest() -> None:
    file = File(path="big", size=SIZE, digest=digest_of_parts(PARTS), parts=PARTS)
    assert [(part.offset, part.length, part.digest) for part in file.layout()] == [
        (0, PART, PARTS[0]),
        (PART, PART, PARTS[1]),
        (2 * PART, 1, PARTS[2]),
    ]
    other = (*PARTS[:2], PARTS[0])
    changed = File(path="big", size=SIZE, digest=digest_of_parts(other), parts=other)
    assert manifest(file).release != manifest(changed).release


def test_a_file_of_one_part_is_that_part() -> None:
    for size in (0, 1, PART):
        (part,) = File(path="small", size=size, digest=PARTS[0]).layout()
        assert (part.offset, part.length, part.digest) == (0, size, PARTS[0])


@pytest.mark.parametrize(
    ("size", "digest", "parts"),
    [
        (SIZE, digest_of_parts(PARTS), PARTS[:2]),
        (SIZE, digest_of_parts(PARTS), ()),
        (1, PARTS[0], PARTS[:1]),
        (SIZE, digest_of_parts(PARTS), PARTS[::-1]),
        (SIZE, PARTS[0], PARTS),
    ],
)
def test_parts_that_are_not_those_of_the_file_are_refused(size: int, digest: str, parts: tuple[str, ...]) -> None:
    text = json.loads(manifest().to_json())
    text["files"][0] |= {"size": size, "digest": digest, "parts": parts}
    with pytest.raises(InvalidManifest, match=r"files\.0"):
        Manifest.from_json(json.dumps(text).encode())
