"""The docs tell of every setting with its default, every preset, metric, record field, outcome, header and command, of
the simulator's options, and of the rights that a site needs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel

from clusters import routing, spec
from clusters.batching import BatchingSpec, SpeculationSpec
from clusters.launch.stores import bucket_policy
from clusters.mix import SpotSpec
from clusters.scaling import AutoscalingSpec, PlannerSpec, ScalingPolicy
from clusters.storage import StoreSpec, Verify, WeightsSpec
from serve_app import errors
from serve_app.cli import commands
from serve_app.metering.metrics import METRICS, PLANNER, WEIGHTS, Metric
from serve_app.metering.record import Outcome, Record
from serve_app.openai import ROUTES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
CODE = " ".join(re.findall(r"```.*?```|`[^`\n]+`", TEXT, re.DOTALL))
ROWS = [[cell.strip() for cell in row.split("|")[1:-1]] for row in TEXT.splitlines() if row.startswith("| ")]

SETTINGS: dict[type[BaseModel], str] = {
    routing.RoutingSpec: "routing.",
    routing.HealthSpec: "health.",
    routing.HedgeSpec: "hedge.",
    routing.HoldSpec: "hold.",
    routing.ContinuationSpec: "continuation.",
    routing.PolicySpec: "",
    spec.KeySpec: "",
    spec.HostedSpec: "",
    spec.HostedModelSpec: "",
    spec.IngressSpec: "",
    PlannerSpec: "planner.",
    WeightsSpec: "weights.",
    StoreSpec: "store.",
    AutoscalingSpec: "autoscaling.",
    BatchingSpec: "batching.",
    SpotSpec: "spot.",
    SpeculationSpec: "speculation.",
}
"""How a table of the docs names the fields of each."""


def settings() -> Iterator[tuple[str, str]]:
    """Name and default, as the docs write them. Parts that have a table of their own are not among them."""
    for kind, prefix in SETTINGS.items():
        for name, field in kind.model_fields.items():
            if not isinstance(field.default, BaseModel):
                default = "required" if field.is_required() else written(field.get_default(call_default_factory=True))
                yield prefix + name, default
    for name in ("loading", "prefix_caching", "speculation", "warm_up_s", "engine"):
        yield name, written(spec.PlacementSpec.model_fields[name].get_default(call_default_factory=True))
    yield "pools.notices", written(spec.PoolSpec.model_fields["notices"].default)


def written(default: Any) -> str:
    match default:
        case bool():
            return str(default).lower()
        case int() | float():
            return f"{default:.15g}"
        case None | () | {}:
            return "–"
    return str(default)


@pytest.mark.parametrize(("name", "default"), sorted(set(settings())))
def test_every_setting_is_told_with_its_default(name: str, default: str) -> None:
    told = [row[1] for row in ROWS if row[0] == f"`{name}`" and len(row) == 3]
    assert default in told, f"the docs say {told or 'nothing'} of {name}, and its default is {default}"


@pytest.mark.parametrize("metric", [*METRICS, *PLANNER, *WEIGHTS], ids=lambda metric: metric.name)
def test_every_metric_is_told_with_its_type_and_labels(metric: Metric) -> None:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
    assert [f"`{metric.name}`", metric.kind.value, labels] in [row[:3] for row in ROWS]


@pytest.mark.parametrize("preset", routing.Preset)
def test_every_preset_is_told(preset: routing.Preset) -> None:
    assert any(row[0] == f"`{preset}`" for row in ROWS)


@pytest.mark.parametrize("word", [*Verify, *spec.Loading, *ScalingPolicy])
def test_every_choice_of_a_setting_is_told(word: str) -> None:
    assert any(f"`{word}`" in cell for row in ROWS for cell in row)


@pytest.mark.parametrize("name", [*Record.__struct_fields__, *Outcome])
def test_every_field_and_outcome_of_a_record_is_told(name: str) -> None:
    assert any(f"`{name}`" in row[0] for row in ROWS)


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_is_told(route: str) -> None:
    assert any(f"`{route}`" in row[0] for row in ROWS)


ERRORS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ApiError)]


@pytest.mark.parametrize("error", [each for each in ERRORS if each.code], ids=lambda error: error.__name__)
def test_every_error_is_told_with_its_status(error: type[errors.ApiError]) -> None:
    assert any(str(error.status) in row[0] and f"`{error.code}`" in row[1] for row in ROWS)


def test_every_example_of_routing_is_valid() -> None:
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
    assert [routing.RoutingSpec.model_validate(example["routing"]) for example in examples if "routing" in example]


def test_every_header_of_ours_is_told_and_no_other() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "serve_app").rglob("*.py"))
    headers = re.compile(r"\bx-rayfleet-[a-z-]*[a-z]")
    assert set(headers.findall(sources)) == set(headers.findall(TEXT))


COMMANDS = getattr(typer.main.get_command(commands), "commands", {})


def test_every_command_is_told_and_no_other() -> None:
    known = set(COMMANDS)
    told = set(re.findall(r"\brayfleet ([a-z]+)\b", CODE))
    assert known == told & known
    assert told <= known


@pytest.mark.parametrize("name", ["simulate", "calibrate"])
def test_every_option_of_the_simulator_is_told_with_its_default_and_no_other(name: str) -> None:
    page = (ROOT / "docs" / "simulator.md").read_text()
    (section,) = re.findall(rf"^### Options of `rayfleet {name}`\n(.*?)(?=^#|\Z)", page, re.DOTALL | re.MULTILINE)
    told = re.findall(r"^\| `(--[a-z-]+)[^|]* \| ([^|]+) \|", section, re.MULTILINE)
    known = [parameter for parameter in COMMANDS[name].params if parameter.opts[0].startswith("--")]
    assert sorted(told) == sorted(
        (parameter.opts[0], "required" if parameter.required else written(parameter.default)) for parameter in known
    )


WEIGHTS_COMMANDS = getattr(COMMANDS["weights"], "commands", {})


@pytest.mark.parametrize("name", WEIGHTS_COMMANDS)
def test_every_weights_command_is_told_with_its_options_and_no_other(name: str) -> None:
    known = {option for parameter in WEIGHTS_COMMANDS[name].params for option in parameter.opts if option[:2] == "--"}
    (row,) = [row for row in ROWS if re.match(rf"`rayfleet weights {name}\b", row[0])]
    assert set(re.findall(r"--[a-z-]+", row[1])) == known


def test_no_other_weights_command_is_told() -> None:
    assert set(re.findall(r"\brayfleet weights ([a-z]+)\b", CODE)) == set(WEIGHTS_COMMANDS)


def test_a_site_may_do_in_its_own_bucket_what_weights_need_and_in_others_only_read() -> None:
    (policy,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "clouds.md").read_text(), re.DOTALL)
    told = {statement["Sid"]: set(statement["Action"]) for statement in json.loads(policy)["Statement"]}
    needed = {action for statement in bucket_policy("bucket")["Statement"] for action in statement["Action"]}
    assert told["KeepOwn"] | told["ListOwn"] == needed
    assert told["ReadOthers"] == {"s3:GetObject", "s3:ListBucket"}


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_links_to_headings_lead_somewhere() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
            headings = re.findall(r"^#+ (.+)$", (page.parent / target if target else page).read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name} links to {target}#{anchor}"
