"""A site keeps its store in agreement with what it should serve."""

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clusters.state import ReleasePhase, ReleaseState
from clusters.storage import WeightsSpec
from tests.weights.making import directory, held, large, published, release_of
from tests.weights.releases import FILES, MODEL
from weights.copying.journal import Journal
from weights.copying.reconcile import FIRST_PAUSE_S, PATIENCE_S, Reconciler, Setting, WantSpec
from weights.errors import NotFound
from weights.manifest import PART, Manifest
from weights.releases.aliases import move
from weights.releases.registry import has_release, release_prefix
from weights.store import Store

NOW = 1_800_000_000.0


class World:
    """Stores in directories, and the reconciler of one site, `here`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.prices: dict[tuple[str, str], float] = {}
        for site in ("home", "here", "there"):
            (root / site).mkdir()

    def opened(self, site: str) -> Store:
        if not (self.root / site).is_dir():
            raise NotFound(f"file://{site}", "open", "no such directory")
        return directory(self.root / site)

    def reconciler(
        self, *wants: Manifest, sites: tuple[str, ...] = ("here",), site: str = "here", **weights: float
    ) -> Reconciler:
        return Reconciler(
            Setting(
                site=site,
                wants=[WantSpec(model=want.model, release=want.release, sites=sites) for want in wants],
                sites=("home", "here", "there"),
                weights=WeightsSpec.model_validate({"home": "home", **weights}),
                opened=self.opened,
                price=lambda source, target: self.prices.get((source, target), 0.09),
                journal=Journal(self.root / "journal"),
                owner=site,
            )
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def only(reconciler: Reconciler) -> ReleaseState:
    (state,) = reconciler.states()
    return state


def test_what_a_placement_needs_comes_here(world: World) -> None:
    manifest = published(world.opened("home"))
    reconciler = world.reconciler(manifest)
    reconciler.look(NOW)
    assert only(reconciler).phase is ReleasePhase.STORED
    assert held(world.opened("here"), manifest) == FILES
    assert reconciler.counts.copied_bytes == manifest.size
    reconciler.look(NOW + 1)
    assert reconciler.counts.copied_bytes == manifest.size


def test_what_nobody_has_is_reported_and_comes_later(world: World) -> None:
    reconciler = world.reconciler(release_of())
    reconciler.look(NOW)
    assert only(reconciler).phase is ReleasePhase.FAILED
    assert f"rayfleet weights push {MODEL}" in only(reconciler).message
    published(world.opened("home"))
    reconciler.look(NOW + FIRST_PAUSE_S / 2)
    assert only(reconciler).phase is ReleasePhase.FAILED, "not asked for at every look"
    reconciler.look(NOW + FIRST_PAUSE_S)
    assert only(reconciler).phase is ReleasePhase.STORED


def test_one_release_that_fails_delays_no_other(world: World) -> None:
    there = published(world.opened("home"))
    reconciler = world.reconciler(release_of({"lost": b"x"}), there)
    reconciler.look(NOW)
    assert [state.phase for state in reconciler.states()] == [ReleasePhase.FAILED, ReleasePhase.STORED]


def test_what_an_alias_names_is_here_before_anyone_pins_it(world: World) -> None:
    pinned = published(world.opened("home"))
    canary = published(world.opened("home"), FILES | {"config.json": b"[]"})
    reconciler = world.reconciler(pinned)
    reconciler.look(NOW)
    assert not has_release(world.opened("here"), MODEL, canary.release)
    move(world.opened("home"), MODEL, "canary", canary.release, "somebody", datetime.now(UTC))
    reconciler.look(NOW + 1)
    assert held(world.opened("here"), canary) == FILES | {"config.json": b"[]"}
    assert {state.release for state in reconciler.states()} == {pinned.release, canary.release}


def test_home_may_be_away(world: World) -> None:
    manifest = published(world.opened("home"))
    world.reconciler(manifest, site="there", sites=("there",)).look(NOW)
    shutil.rmtree(world.root / "home")
    reconciler = world.reconciler(manifest)
    reconciler.look(NOW)
    assert held(world.opened("here"), manifest) == FILES


def test_a_cheaper_source_that_is_about_to_have_it_is_waited_for(world: World) -> None:
    world.prices = {("home", "here"): 0.13, ("home", "there"): 0.12, ("there", "here"): 0.02}
    manifest = published(world.opened("home"), {"model": large(1, 10_000)})
    here = world.reconciler(manifest, sites=("here", "there"))
    here.look(NOW)
    assert (only(here).phase, only(here).message) == (ReleasePhase.ABSENT, "waits for there to have it")
    there = world.reconciler(manifest, sites=("here", "there"), site="there")
    there.look(NOW)
    assert only(there).phase is ReleasePhase.STORED
    here.look(NOW + 1)
    assert here.counts.egress_usd == pytest.approx(10_000 / 1e9 * 0.02)


def test_it_is_not_waited_for_in_vain(world: World) -> None:
    world.prices = {("home", "here"): 0.13, ("home", "there"): 0.12, ("there", "here"): 0.02}
    manifest = published(world.opened("home"))
    reconciler = world.reconciler(manifest, sites=("here", "there"))
    for at in (0.0, PATIENCE_S - 1):
        reconciler.look(NOW + at)
        assert only(reconciler).phase is ReleasePhase.ABSENT
    reconciler.look(NOW + PATIENCE_S)
    assert only(reconciler).phase is ReleasePhase.STORED


def test_what_costs_more_than_allowed_is_left_to_people(world: World) -> None:
    manifest = published(world.opened("home"), {"model": large(1, 1_000_000)})
    reconciler = world.reconciler(manifest, budget_usd=0.00001)
    reconciler.look(NOW)
    assert only(reconciler).phase is ReleasePhase.FAILED
    assert "weights.budget_usd (1e-05)" in only(reconciler).message
    assert "--yes" in only(reconciler).message
    assert not has_release(world.opened("here"), MODEL, manifest.release)


def damage_file(world: World, manifest: Manifest) -> None:
    store, key = world.opened("here"), release_prefix(MODEL, manifest.release) + "model-1.safetensors"
    store.write(key, bytes(len(FILES["model-1.safetensors"])))


def damage_manifest(world: World, manifest: Manifest) -> None:
    world.opened("here").write(release_prefix(MODEL, manifest.release) + "manifest.json", b"{}")


@pytest.mark.parametrize("damage", [damage_file, damage_manifest])
def test_what_is_suspected_is_verified_put_aside_and_copied_again(
    world: World, damage: Callable[[World, Manifest], None]
) -> None:
    manifest = published(world.opened("home"))
    reconciler = world.reconciler(manifest)
    reconciler.look(NOW)
    damage(world, manifest)
    reconciler.look(NOW + 1)
    assert reconciler.counts.corrupt_files == 0, "nobody has told yet"
    reconciler.suspect(MODEL, manifest.release)
    reconciler.look(NOW + 2)
    assert reconciler.counts.corrupt_files == 1
    assert only(reconciler).phase is ReleasePhase.STORED
    assert held(world.opened("here"), manifest) == FILES


def test_what_is_no_longer_wanted_is_no_longer_told(world: World) -> None:
    manifest = published(world.opened("home"))
    move(world.opened("home"), MODEL, "prod", manifest.release, "somebody", datetime.now(UTC))
    other = published(world.opened("home"), {"x": b"y"})
    reconciler = world.reconciler(other)
    reconciler.look(NOW)
    assert len(reconciler.states()) == 2
    world.opened("home").delete(f"models/{MODEL}/aliases/prod.json")
    reconciler.look(NOW + 1)
    assert [state.release for state in reconciler.states()] == [other.release]


def test_uploads_that_nobody_goes_on_with_are_forgotten(world: World) -> None:
    store = world.opened("here")
    orphan = store.upload("models/tiny/000000000000/model", 3 * PART)
    orphan.send(0, bytes(PART))
    reconciler = world.reconciler(published(world.opened("home")))
    reconciler.look(time.time())
    assert len(list(store.unfinished("models/"))) == 1, "it may be under way"
    reconciler.look(time.time() + 8 * 86400)
    assert not list(store.unfinished("models/"))
