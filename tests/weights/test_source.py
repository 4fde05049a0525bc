"""Which files of a directory become a release."""

from pathlib import Path

import pytest

from tests.weights.releases import FILES, write_source
from weights.errors import SourceError
from weights.source import open_source


def test_all_but_what_tools_keep_for_themselves(tmp_path: Path) -> None:
    write_source(tmp_path / "model", FILES | {".git/HEAD": b"", ".gitattributes": b"", "__pycache__/x.pyc": b""})
    with open_source("model", tmp_path) as source:
        assert source.paths == tuple(sorted(FILES))
        assert source.revision is None


def test_links_to_files_are_files(tmp_path: Path) -> None:
    write_source(tmp_path / "blobs", {"abc": b"weights"})
    write_source(tmp_path / "model", {"config.json": b"{}"})
    (tmp_path / "model" / "model.bin").symlink_to("../blobs/abc")
    with open_source("model", tmp_path) as source:
        assert source.paths == ("config.json", "model.bin")
        assert (source.directory / "model.bin").read_bytes() == b"weights"


@pytest.mark.parametrize("target", ["../blobs", "nowhere"])
def test_other_links_are_refused(tmp_path: Path, target: str) -> None:
    write_source(tmp_path / "blobs", {"abc": b"weights"})
    write_source(tmp_path / "model", {"config.json": b"{}"})
    (tmp_path / "model" / "link").symlink_to(target)
    with pytest.raises(SourceError, match="link"), open_source("model", tmp_path):
        pass


@pytest.mark.parametrize("name", ["absent", "empty", "hf://", "hf://only-one-part", "hf://a/b@c d"])
def test_what_cannot_be_a_source_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=name), open_source(name, tmp_path):
        pass
