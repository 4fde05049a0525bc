"""A release appears at a store whole and verified, or not at all."""

from collections import Counter
from pathlib import Path

import pytest

from clusters.launch.stores import environ_for_all
from clusters.spec import Provider
from clusters.storage import StoreSpec
from tests.fakes.store import FlippingStore, FullStore, directory_store
from tests.local_stores import running
from tests.weights.releases import FILES, MODEL, content, push_to, pushed, write_source
from weights.cache import fetch
from weights.errors import Corrupt, NotFound, ReleaseMissing, StoreError
from weights.manifest import Manifest
from weights.registry import has_release, load_manifest, release_prefix, releases, require_release
from weights.replicate import replicate
from weights.store import open_store
from weights.transfer import Delivery

SIZE = sum(map(len, FILES.values()))


class Meter:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.announced: Counter[str] = Counter()
        self.verified: Counter[str] = Counter()

    def begin(self, site: str, size: int) -> None:
        self.announced[site] += size

    def advance(self, site: str, size: int) -> None:
        self.verified[site] += size


def sent(delivery: Delivery) -> set[str]:
    return {file.path for file in delivery.sent}


def at(directory: Path) -> StoreSpec:
    return StoreSpec(url=f"file://{directory}")


def test_a_push_stores_every_file_and_the_manifest(tmp_path: Path) -> None:
    store = directory_store(tmp_path / "home")
    result = push_to(store, write_source(tmp_path / "source"))
    release = result.manifest.release
    assert content(tmp_path / "home" / release_prefix(MODEL, release)) == FILES
    assert load_manifest(store, MODEL, release, "") == result.manifest
    assert sent(result.delivery) == set(FILES)
    assert result.delivery.size == SIZE
    assert releases(store, MODEL) == (release,)


def test_the_same_bytes_again_move_nothing(tmp_path: Path) -> None:
    store = directory_store(tmp_path / "home")
    first = push_to(store, write_source(tmp_path / "source"))
    again = push_to(store, write_source(tmp_path / "copy"))
    assert again.manifest.release == first.manifest.release
    assert again.delivery.sent == ()


def test_other_bytes_are_another_release_beside_the_first(tmp_path: Path) -> None:
    store = directory_store(tmp_path / "home")
    first = push_to(store, write_source(tmp_path / "source"))
    second = push_to(store, write_source(tmp_path / "source", {"config.json": b"{}"}))
    assert set(releases(store, MODEL)) == {first.manifest.release, second.manifest.release}


def test_what_a_cut_push_left_is_verified_before_it_is_kept(tmp_path: Path) -> None:
    complete = directory_store(tmp_path / "complete")
    release = pushed(complete, tmp_path).release
    store = directory_store(tmp_path / "home")
    prefix = release_prefix(MODEL, release)
    wrong = bytes(len(FILES["model-2.safetensors"]))
    store.write(prefix + "model-1.safetensors", FILES["model-1.safetensors"])
    store.write(prefix + "model-2.safetensors", wrong)
    result = push_to(store, tmp_path / "source")
    assert sent(result.delivery) == {"config.json", "model-2.safetensors", "sub/empty"}
    assert content(tmp_path / "home" / prefix) == FILES


def test_a_push_that_fails_publishes_nothing(tmp_path: Path) -> None:
    directory_store(tmp_path / "home")
    store = FullStore(at(tmp_path / "home"), {}, refused="model-2.safetensors")
    with pytest.raises(StoreError, match="quota exceeded"):
        pushed(store, tmp_path)
    assert releases(store, MODEL) == ()


def test_what_arrives_wrong_is_named_and_removed(tmp_path: Path) -> None:
    directory_store(tmp_path / "home")
    store = FlippingStore(at(tmp_path / "home"), {}, flipped="model-2.safetensors")
    with pytest.raises(Corrupt) as caught:
        pushed(store, tmp_path)
    assert (caught.value.file, caught.value.place) == ("model-2.safetensors", store.url)
    assert releases(store, MODEL) == ()
    assert not [item for item in store.objects("") if item.key.endswith("model-2.safetensors")]


def test_every_site_gets_the_release(tmp_path: Path) -> None:
    home = directory_store(tmp_path / "home")
    manifest = pushed(home, tmp_path)
    sites = {}
    for name in ("one", "two"):
        directory_store(tmp_path / name)
        sites[name] = at(tmp_path / name)
    meter = Meter()
    results = replicate(MODEL, manifest.release, home, sites, progress=meter)
    assert [result.site for result in results] == ["one", "two"]
    for name in sites:
        assert content(tmp_path / name / release_prefix(MODEL, manifest.release)) == FILES
        require_release(open_store(sites[name]), MODEL, manifest.release, name)
        assert meter.verified[name] == meter.announced[name] == SIZE


def test_a_site_that_fails_stops_no_other(tmp_path: Path) -> None:
    home = directory_store(tmp_path / "home")
    manifest = pushed(home, tmp_path)
    directory_store(tmp_path / "works")
    sites = {"fails": at(tmp_path / "no-such-directory"), "works": at(tmp_path / "works")}
    fails, works = replicate(MODEL, manifest.release, home, sites)
    assert isinstance(fails.outcome, NotFound)
    assert "no-such-directory" in str(fails.outcome)
    assert isinstance(works.outcome, Delivery)
    assert sent(works.outcome) == set(FILES)


def test_a_file_that_is_lost_comes_back(tmp_path: Path) -> None:
    home = directory_store(tmp_path / "home")
    manifest = pushed(home, tmp_path)
    site = directory_store(tmp_path / "site")
    replicate(MODEL, manifest.release, home, {"site": at(tmp_path / "site")})
    site.delete(release_prefix(MODEL, manifest.release) + "config.json")
    (result,) = replicate(MODEL, manifest.release, home, {"site": at(tmp_path / "site")})
    assert isinstance(result.outcome, Delivery)
    assert sent(result.outcome) == {"config.json"}


def test_corrupt_bytes_at_home_go_nowhere(tmp_path: Path) -> None:
    home = directory_store(tmp_path / "home")
    manifest = pushed(home, tmp_path)
    prefix = release_prefix(MODEL, manifest.release)
    home.write(prefix + "model-1.safetensors", bytes(len(FILES["model-1.safetensors"])))
    site = directory_store(tmp_path / "site")
    (result,) = replicate(MODEL, manifest.release, home, {"site": at(tmp_path / "site")})
    assert isinstance(result.outcome, Corrupt)
    assert (result.outcome.file, result.outcome.place) == ("model-1.safetensors", home.url)
    assert not has_release(site, MODEL, manifest.release)


def test_a_release_that_home_lacks_must_be_pushed(tmp_path: Path) -> None:
    home = directory_store(tmp_path / "home")
    with pytest.raises(ReleaseMissing, match=f"rayfleet weights push {MODEL}"):
        replicate(MODEL, "0" * 12, home, {})


def test_a_site_without_the_release_says_what_mends_it(tmp_path: Path) -> None:
    site = directory_store(tmp_path / "site")
    with pytest.raises(ReleaseMissing, match="rayfleet weights replicate tiny --site far-away"):
        require_release(site, MODEL, "0" * 12, "far-away")


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json"])
def test_a_manifest_that_is_damaged_is_named(tmp_path: Path, damage: bytes) -> None:
    home = directory_store(tmp_path / "home")
    release = pushed(home, tmp_path).release
    home.write(release_prefix(MODEL, release) + "manifest.json", damage)
    with pytest.raises(Corrupt, match=r"manifest\.json"):
        load_manifest(home, MODEL, release, "")


def test_a_manifest_of_another_release_is_refused(tmp_path: Path) -> None:
    home = directory_store(tmp_path / "home")
    manifest: Manifest = pushed(home, tmp_path)
    home.write(release_prefix(MODEL, "0" * 12) + "manifest.json", manifest.to_json())
    with pytest.raises(Corrupt, match=f"it is the manifest of tiny {manifest.release}"):
        load_manifest(home, MODEL, "0" * 12, "")


def test_from_on_prem_to_both_clouds_and_onto_a_node(tmp_path: Path) -> None:
    with running(*Provider, directory=tmp_path / "stores") as stores:
        environ = environ_for_all(stores.values(), tmp_path / "environ")
        home = open_store(stores[Provider.ONPREM].spec, environ)
        release = pushed(home, tmp_path).release
        sites = {provider.value: stores[provider].spec for provider in (Provider.AWS, Provider.GCP)}
        for result in replicate(MODEL, release, home, sites, environ=environ):
            assert isinstance(result.outcome, Delivery), result.outcome
            node = fetch(open_store(sites[result.site], environ), MODEL, release, tmp_path / result.site)
            assert content(node) == FILES
