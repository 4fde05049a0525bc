"""What a release has that another one lacks."""

from tests.weights.shelves import described
from weights.releases.difference import difference


def test_files_are_new_changed_gone_or_the_same() -> None:
    before = described("tiny", {"a": b"1", "b": b"22", "c": b"333"})
    after = described("tiny", {"a": b"1", "b": b"2222", "d": b"55555"})
    found = difference(after, before)
    assert [[file.path for file in files] for files in (found.new, found.changed, found.gone, found.same)] == [
        ["d"],
        ["b"],
        ["c"],
        ["a"],
    ]
    assert found.size == 9


def test_bytes_that_are_there_under_another_name_are_not_new() -> None:
    before, after = described("tiny", {"a": b"1", "b": b"22"}), described("tiny", {"b": b"1", "c": b"22", "d": b"22"})
    found = difference(after, before)
    assert [file.path for file in found.new] == ["c", "d"]
    assert [file.path for file in found.changed] == ["b"]
    assert found.size == 0
