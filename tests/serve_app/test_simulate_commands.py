"""`rayfleet simulate` and `rayfleet calibrate`, as a shell sees them."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from autoscaling.simulate.engine_model import load_model
from autoscaling.simulate.errors import BadTrace, UnknownCard
from serve_app.cli import calibrate, simulate
from serve_app.cli.cache_config import CacheConfig, parse
from serve_app.cli.endpoint import FleetRefused, FleetUnreachable
from tests.fakes.engine.handle import Engine

ROOT = Path(__file__).parents[2]
FLEET = ("--fleet", str(ROOT / "fleet.yaml"), "--billions", "1")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    rows = [f"2023-11-16 18:{n // 60:02}:{n % 60:02}.5,{50 + n},{5 + n % 40}" for n in range(120)]
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows))
    return path


def _run(*arguments: str, **environ: str) -> Result:
    commands = typer.Typer()
    for command in (simulate.simulate, calibrate.calibrate):
        commands.command()(command)
    return CliRunner().invoke(commands, arguments, env={"COLUMNS": "200", **environ})


def test_variants_stand_side_by_side(trace: Path) -> None:
    shown = _run("simulate", str(trace), *FLEET, "--compare", "fixed", "--compare", str(ROOT / "fleet.yaml"))
    assert shown.exit_code == 0, shown.output
    for name in ("as declared", "fixed", "fleet.yaml", "onprem-zurich"):
        assert name in shown.stdout
    assert "nan" not in shown.stdout
    assert "with the planner: as declared, fleet.yaml\n" in re.sub(" +\n", "\n", shown.stdout)
    assert "as declared, planned" in shown.stderr


def test_the_planner_can_be_left_out_where_there_is_one(trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    given = (*FLEET, "--compare", "unplanned", "--compare", "fixed", "--html", str(page))
    shown = json.loads(_run("simulate", str(trace), *given, "--json").stdout)
    assert {name: told["planned"] for name, told in shown.items()} == {
        "as declared": True,
        "unplanned": False,
        "fixed": False,
    }
    assert re.findall("<h2>(.*?)</h2>", page.read_text()) == ["as declared, planned", "unplanned", "fixed"]
    off = tmp_path / "off.yaml"
    off.write_text((ROOT / "fleet.yaml").read_text() + "\nplanner: {enabled: false}\n")
    without = ("--fleet", str(off), "--billions", "1", "--json")
    assert json.loads(_run("simulate", str(trace), *without).stdout)["as declared"] == shown["unplanned"]
    refused = _run("simulate", str(trace), *without, "--compare", "unplanned")
    assert refused.exit_code == 2
    assert "planner.enabled is false" in refused.stderr


def test_json_tells_every_site_and_every_change(trace: Path) -> None:
    busy = ("simulate", str(trace), *FLEET[:2], "--billions", "4", "--rate", "20", "--json")
    shown = _run(*busy)
    told = json.loads(shown.stdout)["as declared"]
    assert told["all"]["requests"] == told["all"]["ok"] == 2400
    assert {site["name"] for site in told["sites"]} == {"aws-us-east-1", "gcp-europe-west4", "onprem-zurich"}
    assert sum(site["requests"] for site in told["sites"]) == 2400
    assert told["changes"]
    assert all(change["reason"] for change in told["changes"])
    assert json.loads(_run(*busy).stdout)["as declared"] == told


def test_the_page_is_whole_and_alone(trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert _run("simulate", str(trace), *FLEET, "--html", str(page)).exit_code == 0
    text = page.read_text()
    drawings = re.findall(r"<svg.*?</svg>", text)
    assert len(drawings) == 2
    for drawing in drawings:
        assert "path" in {element.tag for element in ElementTree.fromstring(drawing).iter()}
    assert "prefers-color-scheme:dark" in text
    assert not re.findall(r"(?:src|href)=|url\(|https?://", text)


def test_shares_outages_and_spot_change_where_requests_go(trace: Path, tmp_path: Path) -> None:
    everywhere = [f"--share={site}=0.33" for site in ("aws-us-east-1", "gcp-europe-west4", "onprem-zurich")]
    told = json.loads(_run("simulate", str(trace), *FLEET, *everywhere, "--json").stdout)["as declared"]
    assert all(site["requests"] > 20 for site in told["sites"])
    out = ("--outage", "onprem-zurich=0-10000")
    told = json.loads(_run("simulate", str(trace), *FLEET, *out, "--json").stdout)["as declared"]
    assert {site["name"]: site["requests"] for site in told["sites"]}["onprem-zurich"] == 0
    assert told["all"]["ok"] == 120


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--share", "mars=0.3"), "has no mars"),
        (("--share", "onprem-zurich"), "has no ="),
        (("--share", "onprem-zurich=much"), "should be a number"),
        (("--outage", "mars=1-2"), "has no mars"),
        (("--engine", "mars/demo-chat=x.json"), "has no mars/demo-chat"),
        (("--model", "nobody"), "no placement of nobody"),
    ],
)
def test_what_names_nothing_is_refused(trace: Path, given: tuple[str, ...], told: str) -> None:
    shown = _run("simulate", str(trace), *FLEET, *given)
    assert shown.exit_code == 2
    assert told in re.sub(r"\s*│?\s+│?\s*", " ", shown.stderr)


def test_a_bad_trace_and_a_model_without_room_are_named(trace: Path, tmp_path: Path) -> None:
    assert isinstance(_run("simulate", str(tmp_path / "no"), *FLEET).exception, BadTrace)
    shown = _run("simulate", str(trace), "--fleet", str(ROOT / "fleet.yaml"), "--billions", "70")
    assert isinstance(shown.exception, UnknownCard)


def test_calibrate_writes_a_model_that_simulate_takes(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "engine.json"
    with Engine(models=("chat",)) as engine:
        engine.behave(first_token_s=0.03, token_s=0.01)
        shown = _calibrate(engine, "site-token", "--out", str(out))
    assert shown.exit_code == 0, shown.output
    model = load_model(out)
    assert model.kv_tokens == 5000
    assert model.step_s == pytest.approx(0.01, rel=0.5)
    assert math.isclose(model.alone_s(20), 0.03, rel_tol=0.6)
    assert "measured at east" in model.source
    assert "last first token" in shown.stdout
    assert "12/12" in shown.stderr
    assert _run("simulate", str(trace), *FLEET, "--engine", str(out)).exit_code == 0


def test_calibrate_tells_what_the_endpoint_says(tmp_path: Path) -> None:
    with Engine(models=("chat",)) as engine:
        shown = _calibrate(engine, "wrong", "--out", str(tmp_path / "engine.json"))
    assert isinstance(shown.exception, FleetRefused)
    assert "401" in str(shown.exception)
    assert not (tmp_path / "engine.json").exists()


def test_calibrate_needs_the_size_of_the_cache(tmp_path: Path) -> None:
    shown = _run("calibrate", "chat", "--site", "east", "--endpoint", "http://127.0.0.1:9")
    assert shown.exit_code == 2
    assert "or --metrics" in shown.stderr


def test_metrics_tell_the_cache_and_others_are_refused_with_their_url() -> None:
    line = 'vllm:cache_config_info{block_size="128",engine="0",kv_cache_size_tokens="43648",num_gpu_blocks="341"} 1.0'
    assert parse(f"# HELP x\n{line}\n", "http://x/metrics") == CacheConfig(kv_tokens=43648, block_tokens=128)
    for other in ("", line.replace("kv_cache_size_tokens", "size"), line.replace("43648", "None")):
        with pytest.raises(FleetUnreachable, match="http://x/metrics"):
            parse(other, "http://x/metrics")


def test_calibrate_says_which_batches_the_engine_did_not_run_at_once(tmp_path: Path) -> None:
    with Engine(models=("chat",)) as engine:
        engine.behave(first_token_s=0.03, token_s=0.01, max_num_seqs=2)
        shown = _calibrate(engine, "site-token", "--out", str(tmp_path / "engine.json"), "--batches", "1,2,8")
    assert shown.exit_code == 0, shown.output
    assert "8 at once never all ran: left out" in shown.stderr


def _calibrate(engine: Engine, key: str, *others: str) -> Result:
    """Straight at a site's model, which speaks as the ingress does."""
    endpoint = f"{engine.endpoint}/models/chat"
    size = ("--prompts", "8,64", "--batches", "1,4", "--tokens", "12", "--kv-tokens", "5000")
    given = ("--site", "east", "--endpoint", endpoint, *size, *others)
    return _run("calibrate", "chat", *given, RAYFLEET_API_KEY=key)
