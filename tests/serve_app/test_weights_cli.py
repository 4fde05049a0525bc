"""`rayfleet weights` from a fleet file to the stores and back."""

import json
from io import StringIO
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from clusters.check import load
from serve_app.cli.bars import Bars
from serve_app.cli.declared import pinned
from serve_app.cli.weights import app, push_and_replicate
from tests.weights.releases import FILES, content, write_source
from weights.errors import OverBudget, SourceError

FLEET = """\
version: 1
name: test
sites:
  - {name: home, provider: onprem, region: here, jurisdiction: ch, endpoint: "https://home.example.com",
     store: {url: "file://DIRECTORY/home"}, machines: {head: one, hosts: [w1]},
     pools: [{name: pool, instance_type: any, usd_per_hour: 1}]}
  - {name: away, provider: onprem, region: there, jurisdiction: ch, endpoint: "https://away.example.com",
     store: {url: "file://DIRECTORY/away"}, machines: {head: two, hosts: [w2]},
     pools: [{name: pool, instance_type: any, usd_per_hour: 1}]}
models:
  # What follows is pinned by hand.
  - {name: other, source: other, release: 111111111111, tasks: [chat], max_model_len: 512}   # not a number
  - name: tiny
    source: source
    release: "000000000000"     # pinned by `push --pin`
    tasks: [chat]
    max_model_len: 512
placements:
  - {model: tiny, site: home, pool: pool, gpus: 0}
  - {model: tiny, site: away, pool: pool, gpus: 0}
  - {model: other, site: away, pool: pool, gpus: 0}
weights: {home: home}
ingress:
  machines: {head: three}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    write_source(tmp_path / "source")
    (tmp_path / "home").mkdir()
    (tmp_path / "away").mkdir()
    path = tmp_path / "fleet.yaml"
    path.write_text(
        FLEET.replace("DIRECTORY", str(tmp_path)).replace("release: 111111111111", 'release: "111111111111"')
    )
    return path


def run(fleet: Path, *arguments: str) -> Result:
    environ = {"COLUMNS": "200", "HOME": str(fleet.parent / "user")}
    return CliRunner().invoke(app, [*arguments, "--fleet", str(fleet)], env=environ)


def test_push_pin_replicate_status(fleet: Path, tmp_path: Path) -> None:
    before = fleet.read_text()
    done = run(fleet, "push", "tiny", "--pin")
    assert done.exit_code == 0, done.output
    release = load(fleet).model("tiny").release
    assert release in done.output
    assert fleet.read_text() == before.replace('"000000000000"', f'"{release}"')

    done = run(fleet, "replicate", "tiny")
    assert done.exit_code == 0, done.output
    assert f"tiny {release} at away: stored, 4 files" in done.output
    assert content(tmp_path / "away" / "models" / "tiny" / release) == FILES

    done = run(fleet, "status", "--json", "--dir", str(tmp_path))
    assert done.exit_code == 0, done.output
    states = {(one["model"], one["site"]): one["state"] for one in json.loads(done.output)}
    assert states["tiny", "home"] == states["tiny", "away"] == "stored"
    assert states["other", "away"] == "absent"


def test_a_dry_run_says_what_it_would_take_and_does_nothing(fleet: Path, tmp_path: Path) -> None:
    run(fleet, "push", "tiny", "--pin")
    done = run(fleet, "replicate", "tiny", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    home, away = json.loads(done.stdout)
    size = sum(map(len, FILES.values()))
    assert (home["site"], home["send_bytes"], home["from"]) == ("home", 0, None)
    assert away["free_bytes"] > size
    assert (away["site"], away["send_bytes"], away["from"], away["usd"]) == ("away", size, "home", 0)
    assert not list((tmp_path / "away").iterdir())


def test_what_costs_more_than_the_budget_needs_a_yes(fleet: Path, tmp_path: Path) -> None:
    run(fleet, "push", "tiny", "--pin")
    text = fleet.read_text().replace("region: here,", "region: here, egress_usd_per_gb: 0.09,")
    text = text.replace("region: there,", "region: there, egress_usd_per_gb: 0.09,")
    fleet.write_text(text.replace("weights: {home: home}", "weights: {home: home, budget_usd: 0.000001}"))
    done = run(fleet, "replicate", "tiny")
    assert isinstance(done.exception, OverBudget)
    assert "--yes" in str(done.exception)
    assert not list((tmp_path / "away").glob("models"))
    assert run(fleet, "replicate", "tiny", "--yes").exit_code == 0


def test_a_model_that_was_never_pushed_stops_no_other(fleet: Path, tmp_path: Path) -> None:
    run(fleet, "push", "tiny", "--pin")
    done = run(fleet, "replicate")
    assert done.exit_code == 1
    assert "rayfleet weights push other" in done.output
    assert list((tmp_path / "away" / "models").iterdir()) == [tmp_path / "away" / "models" / "tiny"]


def test_a_site_that_fails_is_told_and_fails_the_command(fleet: Path, tmp_path: Path) -> None:
    run(fleet, "push", "tiny", "--pin")
    (tmp_path / "away").rmdir()
    done = run(fleet, "replicate", "tiny")
    assert done.exit_code == 1
    assert "at away: failed" in done.output
    done = run(fleet, "status", "--dir", str(tmp_path))
    assert done.exit_code == 1
    assert "stored" in done.output
    assert "no such directory" in done.output


def test_names_that_are_not_in_the_fleet_are_refused(fleet: Path) -> None:
    assert "there are other, tiny" in run(fleet, "push", "huge").output
    assert "there are home, away" in run(fleet, "replicate", "tiny", "--site", "moon").output


def test_all_models_go_everywhere(fleet: Path, tmp_path: Path) -> None:
    write_source(tmp_path / "other", {"config.json": b"{}"})
    run(fleet, "push", "tiny", "--pin")
    run(fleet, "push", "other", "--pin")
    told: list[str] = []
    push_and_replicate(load(fleet), {}, told.append, tmp_path)
    assert told == ["other to home", "other to away", "tiny to home", "tiny to away"]
    release = load(fleet).model("other").release
    assert content(tmp_path / "away" / "models" / "other" / release) == {"config.json": b"{}"}


def test_a_source_that_is_not_the_pinned_release_is_refused(fleet: Path, tmp_path: Path) -> None:
    write_source(tmp_path / "other")
    with pytest.raises(SourceError, match="rayfleet weights push other --pin"):
        push_and_replicate(load(fleet), {}, lambda _: None, tmp_path)


@pytest.mark.parametrize("release", ["123456789012", "12345e678901", "abcdef012345"])
def test_pinning_keeps_everything_else(release: str) -> None:
    text = pinned(FLEET, "other", release)
    assert text == FLEET.replace("release: 111111111111", f'release: "{release}"')
    assert yaml.safe_load(text)["models"][0]["release"] == release


def test_bars_of_sites_add_up() -> None:
    with Bars(Console(file=StringIO())) as bars:
        bars.begin("one", 10)
        bars.advance("one", 4)
        bars.begin("other", 20)
        bars.begin("one", 1)
        bars.advance("other", 5)
        bars.advance("other", -2)
        told = {task.description: (task.completed, task.total) for task in bars.tasks}
    assert told == {"one": (4, 11), "other": (3, 20), "all sites": (7, 31)}
