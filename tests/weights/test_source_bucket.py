"""What lies below a prefix of a bucket is a source, as long as nobody changes it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.weights.pushing import KINDS, Place, place_of
from weights.errors import AccessDenied, NotFound, SourceError
from weights.sources.bucket import BucketSource
from weights.sources.source import Source, open_source

FILES = {"config.json": b"{}", "sub dir/ü+#.bin": bytes(range(256)) * 9000}


@pytest.fixture(scope="module", params=KINDS)
def running_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_of(request.param, tmp_path_factory.mktemp("store")) as place:
        yield place


@pytest.fixture
def place(running_place: Place) -> Place:
    place = running_place.fresh()
    for path, content in FILES.items():
        place.open().write(path, content)
    return place


def source_at(place: Place) -> Source:
    return BucketSource(place.spec.url, place.open())


def test_all_objects_but_what_tools_keep_for_themselves(place: Place) -> None:
    for key in (".git/HEAD", "sub dir/.cache/x", "__pycache__/x.pyc"):
        place.open().write(key, b"x")
    source = source_at(place)
    assert {file.path: b"".join(source.read(file.path, 0, file.size)) for file in source.files} == FILES
    assert not source.local


def test_a_folder_is_no_file(place: Place) -> None:
    if place.kind in ("directory", "onprem"):
        pytest.skip("this store keeps nothing at a directory's name")
    place.open().write("sub dir/", b"")
    assert [file.path for file in source_at(place).files] == sorted(FILES)


def test_the_revision_changes_with_the_content(place: Place) -> None:
    first = source_at(place)
    assert source_at(place).revision == first.revision
    place.open().write("config.json", b"[]")
    assert source_at(place).revision != first.revision


@pytest.mark.parametrize("change", [b"[]", b"[1, 2]"])
def test_an_object_that_is_replaced_meanwhile_is_named(place: Place, change: bytes) -> None:
    source = source_at(place)
    place.open().write("config.json", change)
    with pytest.raises(SourceError, match=r"config\.json of .* changed"):
        b"".join(source.read("config.json", 0, 2))


def test_a_bucket_is_opened_by_its_url(place: Place) -> None:
    if place.kind in ("directory", "gcp"):
        pytest.skip("a test's GCS has no credentials that its normal chain would find")
    source = open_source(place.spec.url, Path(), place.environ, place.spec.endpoint, place.spec.profile)
    assert source.name == place.spec.url
    assert [file.path for file in source.files] == sorted(FILES)


def test_a_prefix_without_objects_is_no_source(place: Place) -> None:
    with pytest.raises(SourceError, match="holds no files"):
        source_at(place.fresh())


def test_a_missing_bucket_is_named(place: Place) -> None:
    scheme = place.spec.url.partition("://")[0]
    url = f"{scheme}://{'/' if scheme == 'file' else ''}no-such-bucket/prefix"
    with pytest.raises((AccessDenied, NotFound), match="no-such-bucket"):
        source_at(replace(place, spec=place.spec.model_copy(update={"url": url})))
