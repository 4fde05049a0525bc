"""`rayfleet weights list`, `show`, `diff`, `alias`, `pin`, `verify`, `rm` and `gc`, as a shell sees them."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from clusters.check import load
from serve_app.cli import releases, upkeep
from tests.fakes.store import directory_store
from tests.weights.shelves import FILES, NOW, path_of, shelve
from weights.errors import Corrupt, NotFound, ReleaseMissing, StoreError
from weights.manifest import Manifest
from weights.releases.aliases import find, move
from weights.releases.lease import held
from weights.releases.registry import has_release
from weights.stores.directory import DirectoryStore

SITE = """\
  - {name: NAME, provider: onprem, region: NAME, jurisdiction: ch, endpoint: "https://NAME.example.com",
     store: {url: "file://DIRECTORY/NAME"}, machines: {head: NAME, hosts: [w1]},
     pools: [{name: pool, instance_type: any, usd_per_hour: 1}]}
"""
FLEET = f"""\
version: 1
name: test
sites:
{SITE.replace("NAME", "home")}{SITE.replace("NAME", "away")}
models:
  - {{name: tiny, source: here, release: "PINNED", tasks: [chat], max_model_len: 512}} # pinned
placements:
  - {{model: tiny, site: home, pool: pool, gpus: 0}}
weights: {{home: home}}
ingress:
  machines: {{head: three}}
"""


@dataclass(frozen=True)
class Fleet:
    """A fleet of two sites whose home holds two releases of `tiny`, the older one pinned."""

    path: Path
    home: DirectoryStore
    away: DirectoryStore
    first: Manifest
    second: Manifest

    def run(self, *arguments: str, answer: str = "") -> Result:
        app = typer.Typer()
        app.command("list")(releases.list_releases)
        commands: tuple[Callable[..., None], ...] = (
            releases.show,
            releases.diff,
            releases.alias,
            releases.pin,
            upkeep.verify,
            upkeep.rm,
            upkeep.gc,
        )
        for command in commands:
            app.command()(command)
        return CliRunner().invoke(app, [*arguments, "--fleet", str(self.path)], input=answer, env={"COLUMNS": "200"})

    def ran(self, *arguments: str, answer: str = "") -> str:
        done = self.run(*arguments, answer=answer)
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ran(*arguments, "--json"))


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    home, away = (directory_store(tmp_path / name) for name in ("home", "away"))
    first = shelve(home, "tiny", {"old": b"1", "config.json": b"{}"}, NOW - timedelta(days=1))
    second = shelve(home, "tiny", parent=first.release)
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET.replace("DIRECTORY", str(tmp_path)).replace("PINNED", first.release))
    return Fleet(path, home, away, first, second)


def test_list_shows_the_latest_first_and_what_they_are_called(fleet: Fleet) -> None:
    move(fleet.home, "tiny", "prod", fleet.second.release, "ann", NOW)
    second, first = fleet.json("list")
    assert (second["release"], second["aliases"], second["pinned"]) == (fleet.second.release, ["prod"], False)
    assert (first["release"], first["aliases"], first["pinned"]) == (fleet.first.release, [], True)
    assert (second["files"], second["bytes"], second["parent"]) == (3, fleet.second.size, fleet.first.release)
    shown = fleet.ran("list", "tiny")
    assert shown.index(fleet.second.release) < shown.index(fleet.first.release)
    assert "prod" in shown
    assert fleet.json("list", "other") == []


def test_a_site_is_listed_while_the_home_is_away(fleet: Fleet, tmp_path: Path) -> None:
    release = shelve(fleet.away, "tiny").release
    (tmp_path / "home").rename(tmp_path / "gone")
    done = fleet.run("list", "--site", "away", "--json")
    assert [one["release"] for one in json.loads(done.stdout)] == [release]
    assert "aliases are not known" in done.stderr
    assert isinstance(fleet.run("list").exception, NotFound)


def test_show_tells_what_a_release_consists_of(fleet: Fleet) -> None:
    move(fleet.home, "tiny", "prod", fleet.second.release, "ann", NOW)
    shown = fleet.json("show", "tiny", "prod")
    assert shown["release"] == fleet.second.release
    assert {file["path"]: file["bytes"] for file in shown["content"]} == {k: len(v) for k, v in FILES.items()}
    told = fleet.ran("show", "tiny", fleet.second.release)
    assert "model.safetensors" in told
    assert "a test" in told


def test_what_is_not_there_is_told(fleet: Fleet) -> None:
    absent = fleet.run("show", "tiny", "0" * 12).exception
    assert isinstance(absent, ReleaseMissing)
    assert "run: rayfleet weights list tiny" in str(absent)
    unknown = fleet.run("show", "tiny", "prod").exception
    assert "there are: none" in str(unknown)
    assert "there are home, away" in fleet.run("list", "--site", "moon").output
    assert "can't be the name of a model" in fleet.run("list", "../tiny").output
    assert "no model 'other' in the fleet" in fleet.run("pin", "other", "prod").output


def test_diff_compares_with_the_parent_or_any_other(fleet: Fleet) -> None:
    found = fleet.json("diff", "tiny", fleet.second.release)
    assert found["other"] == fleet.first.release
    assert [[file["path"] for file in found[how]] for how in ("new", "changed", "gone", "same")] == [
        ["model.safetensors", "sub/empty"],
        [],
        ["old"],
        ["config.json"],
    ]
    assert found["bytes_new"] == len(FILES["model.safetensors"])
    told = fleet.ran("diff", "tiny", fleet.first.release, fleet.second.release)
    assert "1 files new, 0 changed, 2 gone, 1 the same; 1 byte new" in told
    assert "has no parent" in fleet.run("diff", "tiny", fleet.first.release).output


def test_an_alias_is_set_moved_shown_and_dropped(fleet: Fleet) -> None:
    fleet.ran("alias", "tiny", "canary", fleet.second.release)
    fleet.ran("alias", "tiny", "prod", fleet.first.release)
    fleet.ran("alias", "tiny", "prod", "canary")
    assert fleet.json("alias", "tiny", "prod")["release"] == fleet.second.release
    assert "@" in find(fleet.home, "tiny", "prod").by
    assert fleet.first.release not in fleet.ran("alias", "tiny", "prod")
    assert fleet.first.release in fleet.ran("alias", "tiny", "prod", "--history")
    fleet.ran("alias", "tiny", "prod", "--drop")
    assert isinstance(fleet.run("alias", "tiny", "prod").exception, NotFound)
    assert fleet.run("alias", "tiny", "Prod", fleet.first.release).exit_code == 2
    assert fleet.run("alias", "tiny", "prod", fleet.first.release, "--drop").exit_code == 2


def test_pin_writes_the_fleet_file_and_nothing_else_of_it(fleet: Fleet) -> None:
    before = fleet.path.read_text()
    move(fleet.home, "tiny", "prod", fleet.second.release, "ann", NOW)
    assert f"it was {fleet.first.release}" in fleet.ran("pin", "tiny", "prod").replace("\n", " ")
    assert fleet.path.read_text() == before.replace(fleet.first.release, fleet.second.release)
    assert load(fleet.path).model("tiny").release == fleet.second.release
    assert isinstance(fleet.run("pin", "tiny", "0" * 12).exception, ReleaseMissing)


def test_verify_names_what_is_corrupt_and_puts_it_aside_on_request(fleet: Fleet, tmp_path: Path) -> None:
    assert all(one["corrupt"] == [] for one in fleet.json("verify"))
    path_of(tmp_path / "home", fleet.second, "model.safetensors").write_bytes(bytes(len(FILES["model.safetensors"])))
    assert "right" in fleet.ran("verify", "--how", "off")
    for again in range(2):
        done = fleet.run("verify", "tiny", *(["--repair"] if again else []))
        assert done.exit_code == 1
        assert "model.safetensors at file:" in done.stdout
        assert f"{fleet.first.release} at home: right" in done.stdout
    assert "run: rayfleet weights replicate tiny --site home" in done.stdout
    assert not has_release(fleet.home, "tiny", fleet.second.release)
    assert "right" in fleet.ran("verify")


def test_a_corrupt_manifest_is_found_and_removed(fleet: Fleet, tmp_path: Path) -> None:
    path_of(tmp_path / "home", fleet.second, "manifest.json").write_bytes(b"{}")
    done = fleet.run("verify", "--repair", "--json")
    assert done.exit_code == 1
    corrupt = {one["release"]: one["corrupt"] for one in json.loads(done.stdout)}
    assert corrupt[fleet.first.release] == []
    assert "manifest.json" in corrupt[fleet.second.release][0]
    assert not has_release(fleet.home, "tiny", fleet.second.release)


def test_what_is_in_use_is_only_removed_by_force(fleet: Fleet) -> None:
    move(fleet.home, "tiny", "prod", fleet.second.release, "ann", NOW)
    assert "pinned by the fleet file" in fleet.run("rm", "tiny", fleet.first.release).output
    assert "what prod points to" in fleet.run("rm", "tiny", fleet.second.release).output
    assert "12 hex digits" in fleet.run("rm", "tiny", "prod").output
    fleet.ran("rm", "tiny", fleet.second.release, "--force")
    assert list(fleet.home.objects(f"models/tiny/{fleet.second.release}/")) == []
    assert has_release(fleet.home, "tiny", fleet.first.release)
    assert isinstance(fleet.run("rm", "tiny", fleet.second.release, "--force").exception, NotFound)


def test_what_is_being_copied_is_only_removed_by_force(fleet: Fleet) -> None:
    with held(fleet.home, "tiny", fleet.second.release, "bob"):
        assert "being copied there by bob" in fleet.run("rm", "tiny", fleet.second.release).output
    fleet.ran("rm", "tiny", fleet.second.release)
    assert not has_release(fleet.home, "tiny", fleet.second.release)


def test_gc_removes_what_it_showed_when_told_so(fleet: Fleet, tmp_path: Path) -> None:
    third = shelve(fleet.home, "tiny", {"n": b"3"}, NOW + timedelta(days=1))
    fleet.home.write("incoming/0a1b/bytes/x", b"x")
    then = time.time() - 8 * 86400
    os.utime(tmp_path / "home/incoming/0a1b/bytes/x", (then, then))
    shown = fleet.json("gc", "--keep", "1", "--dry-run")
    keys = {one["key"] for one in shown}
    assert keys == {
        "incoming/0a1b/bytes/x",
        *(f"models/tiny/{fleet.second.release}/{name}" for name in (*FILES, "manifest.json")),
    }
    assert fleet.run("gc", "--keep", "1", answer="n\n").exit_code == 1
    assert fleet.json("gc", "--keep", "1", "--dry-run") == shown
    assert "nor among the newest" in fleet.ran("gc", "--keep", "1", "--yes")
    assert fleet.json("gc", "--keep", "1", "--dry-run") == []
    assert has_release(fleet.home, "tiny", fleet.first.release)
    assert has_release(fleet.home, "tiny", third.release)
    assert "nothing that nobody needs" in fleet.ran("gc").replace("\n", " ")


def test_gc_at_a_site_spares_what_the_home_has_names_for(fleet: Fleet, tmp_path: Path) -> None:
    old = shelve(fleet.away, "tiny", created=fleet.second.created)
    shelve(fleet.away, "tiny", {"n": b"3"}, NOW + timedelta(days=1))
    assert fleet.json("gc", "--site", "away", "--keep", "1", "--dry-run")
    move(fleet.home, "tiny", "prod", old.release, "ann", NOW)
    assert fleet.json("gc", "--site", "away", "--keep", "1", "--dry-run") == []
    fleet.home.write("models/tiny/aliases/canary.json", b"?")
    assert isinstance(fleet.run("gc", "--site", "away", "--yes").exception, Corrupt)
    (tmp_path / "home").rename(tmp_path / "gone")
    assert isinstance(fleet.run("gc", "--site", "away", "--yes").exception, StoreError)
