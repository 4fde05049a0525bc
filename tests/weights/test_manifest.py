"""A manifest identifies bytes, and one that could do harm is refused."""

import json
from datetime import timedelta
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.weights.releases import NOW
from weights.errors import InvalidManifest
from weights.manifest import MAX_BYTES, File, Manifest, manifest_of

ONE = File(path="a/one", size=3, sha256="0" * 64)
TWO = File(path="two", size=0, sha256="f" * 64)


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


@pytest.mark.parametrize("other", [{"path": "a/other"}, {"size": 4}, {"sha256": "1" * 64}])
def test_another_name_or_other_bytes_are_another_release(other: dict[str, object]) -> None:
    assert manifest(ONE.model_copy(update=other), TWO).release != manifest().release


def test_the_identity_never_changes() -> None:
    # Releases that exist are found by it.
    assert manifest().release == "8ffa5dcee367"


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
        ("sha256", "0" * 63),
        ("sha256", "A" * 64),
        ("sha256", "0" * 63 + "\n"),
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
        manifest(*(File(path=path, size=1, sha256="0" * 64) for path in paths))


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"version": 2}', b" " * (MAX_BYTES + 1)]
)
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidManifest):
        Manifest.from_json(text)
