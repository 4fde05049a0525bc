"""`rayfleet check`, `schema` and `key`, as a shell sees them."""

import hashlib
import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from clusters.spec import KeySpec
from serve_app.auth import Keyring
from serve_app.cli import fleet

ROOT = Path(__file__).parents[2]
RIGHT = ROOT / "fleet.yaml"


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(RIGHT.read_text().replace("version: 1", "version: [red]2"))
    return path


def _run(*arguments: str, **environ: str) -> Result:
    commands = typer.Typer()
    for command in (fleet.check, fleet.schema, fleet.key):
        commands.command()(command)
    return CliRunner().invoke(commands, arguments, env={"COLUMNS": "200", **environ})


def test_check_shows_cards_nodes_and_cost() -> None:
    shown = _run("check", "--fleet", str(RIGHT))
    assert shown.exit_code == 0
    assert "1 card: 2 × demo-chat 0.5" in shown.stdout
    assert "USD/hour" in shown.stdout


def test_check_names_the_line_and_fails(wrong: Path) -> None:
    shown = _run("check", RAYFLEET_FILE=str(wrong))
    assert shown.exit_code == 1
    assert shown.stdout == ""
    line = wrong.read_text().splitlines().index("version: [red]2") + 1
    assert f"{wrong}:{line}: not YAML" in shown.stderr
    assert shown.stderr.endswith("1 problem\n")


def test_check_speaks_json(wrong: Path) -> None:
    (problem,) = json.loads(_run("check", "--json", "--fleet", str(wrong)).stdout)["problems"]
    assert problem["path"] == str(wrong)
    assert problem["fix"]
    answer = json.loads(_run("check", "--json", "--fleet", str(RIGHT)).stdout)
    assert answer["problems"] == []
    assert all(pool["nodes"]["min"] <= pool["nodes"]["max"] for pool in answer["pools"])


def test_the_schema_is_one_and_accepts_the_committed_fleet() -> None:
    schema = json.loads(_run("schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(RIGHT.read_text()))
    assert schema["$defs"]["PoolSpec"]["properties"]["usd_per_hour"]["description"] == "USD per node and hour"


def test_a_new_key_opens_the_endpoint_whose_file_has_its_entry() -> None:
    key, _, *entry = _run("key", "alice").stdout.splitlines()
    (spec,) = yaml.safe_load("\n".join(entry))["keys"]
    assert spec == {"name": "alice", "sha256": hashlib.sha256(key.encode()).hexdigest()}
    assert Keyring([KeySpec(**spec)]).authenticate(f"Bearer {key}".encode()).name == "alice"
    assert len(key) == len("rf-") + 43


def test_a_name_that_the_file_would_refuse_makes_no_key() -> None:
    shown = _run("key", "Not A Name")
    assert shown.exit_code == 2
    assert "lower-case" in shown.stderr
