"""Who may copy: one at a time where the store can keep a promise, all where it can't."""

import os
import time
from pathlib import Path

import pytest

from tests.fakes.store import directory_store
from tests.weights.shelves import model, store
from weights.releases.lease import MAX_BYTES, held, holder, lease_key, leased_release, own_name
from weights.store import Store
from weights.stores.directory import DirectoryStore

__all__ = ["model", "store"]

RELEASE = "0123456789ab"


@pytest.fixture
def home(tmp_path: Path) -> DirectoryStore:
    return directory_store(tmp_path / "home")


def grow_old(directory: Path, seconds: float) -> None:
    """The lease of `tiny` was renewed so long ago."""
    then = time.time() - seconds
    os.utime(directory / lease_key("tiny", RELEASE), (then, then))


def test_the_second_is_told_who_was_first(store: Store, model: str) -> None:
    with held(store, model, RELEASE, "ann") as first, held(store, model, RELEASE, "bob") as second:
        assert first is None
        assert second == ("ann" if store.conditional else None)
        assert holder(store, model, RELEASE) == second


def test_a_lease_that_was_given_back_is_free_and_leaves_nothing(store: Store, model: str) -> None:
    with held(store, model, RELEASE, "ann"):
        pass
    assert list(store.objects(f"models/{model}/")) == []
    with held(store, model, RELEASE, "bob") as other:
        assert other is None


def test_a_failure_gives_it_back(store: Store, model: str) -> None:
    with pytest.raises(ZeroDivisionError), held(store, model, RELEASE, "ann"):
        raise ZeroDivisionError
    assert holder(store, model, RELEASE) is None


def test_releases_are_leased_apart(store: Store, model: str) -> None:
    with held(store, model, RELEASE, "ann"), held(store, model, "0" * 12, "bob") as other:
        assert other is None


def test_one_that_expired_is_taken_over_and_not_given_back_by_its_former_owner(
    home: DirectoryStore, tmp_path: Path
) -> None:
    with held(home, "tiny", RELEASE, "ann"):
        grow_old(tmp_path / "home", 61)
        with held(home, "tiny", RELEASE, "bob") as other:
            assert other is None
            assert holder(home, "tiny", RELEASE) == "bob"
            with held(home, "tiny", RELEASE, "eve") as third:
                assert third == "bob"
    assert list(home.objects("")) == []
    with held(home, "tiny", RELEASE, "ann"):
        grow_old(tmp_path / "home", 61)
        bob = held(home, "tiny", RELEASE, "bob")
        bob.__enter__()
    assert holder(home, "tiny", RELEASE) == "bob"
    bob.__exit__(None, None, None)


def test_one_that_nearly_expired_is_not_taken_over(home: DirectoryStore, tmp_path: Path) -> None:
    with held(home, "tiny", RELEASE, "ann"):
        grow_old(tmp_path / "home", 30)
        assert holder(home, "tiny", RELEASE) == "ann"


def test_ages_are_told_by_the_store_alone(
    home: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(home, "tiny", RELEASE, "ann"):
        monkeypatch.setattr(time, "time", lambda: 0.0)
        assert holder(home, "tiny", RELEASE) == "ann"
        monkeypatch.setattr(time, "time", lambda: 1e10)
        assert holder(home, "tiny", RELEASE) == "ann"


def test_it_is_renewed_as_long_as_it_is_held(home: DirectoryStore) -> None:
    with held(home, "tiny", RELEASE, "ann", ttl_s=0.6):
        first = home.find(lease_key("tiny", RELEASE))
        assert first is not None
        until = time.monotonic() + 30
        while (now := home.find(lease_key("tiny", RELEASE))) is None or now.version == first.version:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert now.modified > first.modified


def test_who_lost_it_says_so_and_goes_on(
    home: DirectoryStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with held(home, "tiny", RELEASE, "ann", ttl_s=0.3) as other:
        home.write(lease_key("tiny", RELEASE), b'{"owner": "bob"}')
        until = time.monotonic() + 30
        while "lost the lease" not in caplog.text:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert other is None
    assert home.find(lease_key("tiny", RELEASE)) is not None


def test_what_is_no_lease_keeps_others_away_until_it_expires(home: DirectoryStore, tmp_path: Path) -> None:
    home.write(lease_key("tiny", RELEASE), b"[")
    with held(home, "tiny", RELEASE, "ann") as other:
        assert other == "somebody"
    grow_old(tmp_path / "home", 61)
    with held(home, "tiny", RELEASE, "ann") as other:
        assert other is None


def test_what_keeps_it_from_being_taken_does_not_keep_from_copying(
    home: DirectoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    home.write(lease_key("tiny", RELEASE), b" " * (MAX_BYTES + 1))
    with held(home, "tiny", RELEASE, "ann") as other:
        assert other is None
    assert "without a lease" in caplog.text


def test_keys_tell_their_release() -> None:
    assert leased_release(lease_key("tiny", RELEASE)) == ("tiny", RELEASE)
    assert leased_release(lease_key("tiny", RELEASE) + "-0a1b") == ("tiny", RELEASE)
    assert leased_release(f"models/tiny/{RELEASE}/a.lease") is None


def test_names_of_owners_differ() -> None:
    assert own_name() != own_name()
