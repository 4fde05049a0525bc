"""Which files of a directory become a release."""

from pathlib import Path

import pytest

from tests.weights.releases import FILES, write_source
from weights.errors import SourceError
from weights.sources.source import Source, open_source
from weights.store import PIECE


def content(source: Source, path: str) -> bytes:
    (size,) = (file.size for file in source.files if file.path == path)
    return b"".join(source.read(path, 0, size))


def test_all_but_what_tools_keep_for_themselves(tmp_path: Path) -> None:
    write_source(tmp_path / "model", FILES | {".git/HEAD": b"", ".gitattributes": b"", "__pycache__/x.pyc": b""})
    source = open_source("model", tmp_path)
    assert [(file.path, file.size) for file in source.files] == sorted((path, len(FILES[path])) for path in FILES)
    assert {path: content(source, path) for path in FILES} == FILES
    assert source.revision is None
    assert source.local


def test_a_range_comes_in_pieces(tmp_path: Path) -> None:
    large = bytes(range(256)) * (PIECE // 100)
    write_source(tmp_path / "model", {"large": large})
    source = open_source("model", tmp_path)
    pieces = list(source.read("large", 5, len(large)))
    assert b"".join(pieces) == large[5:]
    assert max(map(len, pieces)) == PIECE
    assert b"".join(source.read("large", 7, 9)) == large[7:16]


def test_links_to_files_are_files(tmp_path: Path) -> None:
    write_source(tmp_path / "blobs", {"abc": b"weights"})
    write_source(tmp_path / "model", {"config.json": b"{}"})
    (tmp_path / "model" / "model.bin").symlink_to("../blobs/abc")
    source = open_source("model", tmp_path)
    assert [file.path for file in source.files] == ["config.json", "model.bin"]
    assert content(source, "model.bin") == b"weights"


@pytest.mark.parametrize("target", ["../blobs", "nowhere"])
def test_other_links_are_refused(tmp_path: Path, target: str) -> None:
    write_source(tmp_path / "blobs", {"abc": b"weights"})
    write_source(tmp_path / "model", {"config.json": b"{}"})
    (tmp_path / "model" / "link").symlink_to(target)
    with pytest.raises(SourceError, match="link"):
        open_source("model", tmp_path)


@pytest.mark.parametrize("path", ["manifest.json", "back\\slash", "line\nfeed"])
def test_a_name_that_no_release_can_hold_is_refused_before_anything_is_read(tmp_path: Path, path: str) -> None:
    write_source(tmp_path / "model", {"config.json": b"{}", path: b""})
    with pytest.raises(SourceError, match="no release can hold"):
        open_source("model", tmp_path)


@pytest.mark.parametrize(
    "name", ["absent", "empty", "hf://", "hf://only-one-part", "hf://a/b@c d", "s3://", "gs://a b"]
)
def test_what_cannot_be_a_source_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=name):
        open_source(name, tmp_path)
