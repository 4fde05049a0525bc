"""Names that move, at stores that honour conditions and at one that does not."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.fakes.store import directory_store
from tests.weights.shelves import NOW, model, shelve, store
from weights.errors import Conflict, Corrupt, NotFound, ReleaseMissing
from weights.parallel import for_each
from weights.releases.aliases import KEPT, Alias, aliases, drop, find, is_alias_name, move, resolve
from weights.store import Store

__all__ = ["model", "store"]


def releases_of(store: Store, model: str, count: int) -> list[str]:
    return [shelve(store, model, {"n": b"%d" % number}).release for number in range(count)]


def test_an_alias_moves_and_remembers_where_it_was(store: Store, model: str) -> None:
    first, second = releases_of(store, model, 2)
    assert move(store, model, "prod", first, "ann", NOW) == find(store, model, "prod")
    moved = move(store, model, "prod", second, "bob", NOW + timedelta(hours=1))
    assert find(store, model, "prod") == moved
    assert (moved.release, moved.by, moved.at) == (second, "bob", NOW + timedelta(hours=1))
    assert [(before.release, before.by, before.at) for before in moved.history] == [(first, "ann", NOW)]


def test_moving_to_where_it_is_changes_nothing(store: Store, model: str) -> None:
    (release,) = releases_of(store, model, 1)
    first = move(store, model, "prod", release, "ann", NOW)
    assert move(store, model, "prod", release, "bob", NOW + timedelta(hours=1)) == first


def test_a_name_stands_for_a_release_and_so_does_its_id(store: Store, model: str) -> None:
    first, second = releases_of(store, model, 2)
    move(store, model, "prod", first, "ann", NOW)
    move(store, model, "canary", second, "ann", NOW)
    assert [alias.name for alias in aliases(store, model)] == ["canary", "prod"]
    assert resolve(store, model, "canary") == second
    assert resolve(store, model, "0123456789ab") == "0123456789ab"
    with pytest.raises(NotFound, match="there are: canary, prod"):
        resolve(store, model, "beta")
    with pytest.raises(NotFound):
        resolve(store, model, "../prod")


def test_an_alias_can_be_dropped(store: Store, model: str) -> None:
    (release,) = releases_of(store, model, 1)
    move(store, model, "prod", release, "ann", NOW)
    drop(store, model, "prod")
    drop(store, model, "prod")
    assert aliases(store, model) == ()


def test_only_a_release_that_is_there_gets_a_name(store: Store, model: str) -> None:
    with pytest.raises(ReleaseMissing, match=f"run: rayfleet weights push {model}"):
        move(store, model, "prod", "0" * 12, "ann", NOW)
    assert aliases(store, model) == ()


def test_no_move_is_lost_where_conditions_are_honoured(store: Store, model: str) -> None:
    made = releases_of(store, model, 4)
    for_each(lambda release: move(store, model, "prod", release, release, NOW), made, 4)
    alias = find(store, model, "prod")
    told = [alias.release, *(before.release for before in alias.history)]
    assert len(set(told)) == len(told)
    assert set(told) == set(made) if store.conditional else set(told) <= set(made)


def test_who_always_comes_too_late_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, model = directory_store(tmp_path / "home"), "tiny"
    first, second, *others = releases_of(home, model, 9)
    move(home, model, "prod", first, "ann", NOW)
    write_if = home.write_if

    def beaten(key: str, content: bytes, version: str | None) -> bool:
        other = others.pop()
        faster = Alias(name="prod", release=other, at=NOW, by="bob")
        home.write(key, faster.model_dump_json().encode())
        return write_if(key, content, version)

    monkeypatch.setattr(home, "write_if", beaten)
    with pytest.raises(Conflict, match="being moved by others"):
        move(home, model, "prod", second, "ann", NOW)
    assert find(home, model, "prod").by == "bob"


def test_history_has_a_bound(store: Store, model: str) -> None:
    alias = Alias(name="prod", release="0" * 12, at=NOW, by="ann")
    for number in range(KEPT + 10):
        alias = alias.moved(f"{number:012x}", "ann", NOW)
    assert len(alias.history) == KEPT
    assert alias.history[0].release == f"{KEPT + 8:012x}"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"name": "prod", "release": "../../x", "at": "now", "by": ""}'])
def test_what_is_no_alias_is_told_and_can_be_replaced(store: Store, model: str, content: bytes) -> None:
    (release,) = releases_of(store, model, 1)
    store.write(f"models/{model}/aliases/prod.json", content)
    for use in (lambda: aliases(store, model), lambda: move(store, model, "prod", release, "ann", NOW)):
        refused: Callable[[], object] = use
        with pytest.raises(Corrupt, match=r"prod\.json at .* drop it and set it again"):
            refused()
    drop(store, model, "prod")
    assert move(store, model, "prod", release, "ann", NOW).release == release


@pytest.mark.parametrize("name", ["", "Prod", "-prod", "a/b", "..", "a.b", "0123456789ab", "a" * 64])
def test_names_that_could_be_taken_for_something_else_are_refused(store: Store, model: str, name: str) -> None:
    assert not is_alias_name(name)
    with pytest.raises(ValueError, match="can't be the name of an alias"):
        move(store, model, name, "0" * 12, "ann", NOW)
