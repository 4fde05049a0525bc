"""Every kind of mistake in a fleet file is named with its line, its field and a fix that mends it."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.check import MAX_BYTES, InvalidFleet, load, problems
from clusters.spec import FleetSpec
from tests.clusters.mistakes import FLEET, assert_mistake

ROOT = Path(__file__).parents[2]

EAST, WEST, HOME = "sites[0] (east)", "sites[1] (west)", "sites[2] (home)"
L4, A100, L40S = f"{EAST}.pools[0] (l4)", f"{WEST}.pools[0] (a100)", f"{HOME}.pools[0] (l40s)"
CHAT_EAST, CHAT_WEST, EMBED = (
    "placements[0] (chat @ east)",
    "placements[1] (chat @ west)",
    "placements[2] (embed @ home)",
)
SECOND_KEY = "keys:\n  - {name: you, sha256: "

# Old text, new text, field, part of the message, part of the fix. The problem is on the line that changed.
MISTAKES = [
    # Unknown, missing, of the wrong kind.
    ("jurisdiction: us", "juristiction: us", f"{EAST}.juristiction", "unknown field", "did you mean `jurisdiction`?"),
    ("version: 1", "zzz: 1", "zzz", "unknown field", "remove it; known here: version, name, sites"),
    ("max_num_seqs: 16", "max_seqs: 16", f"{CHAT_EAST}.batching.max_seqs", "unknown field", "`max_num_seqs`"),
    (", usd_per_hour: 20", "", f"{A100}.usd_per_hour", "missing", "add `usd_per_hour: …` (USD per node and hour)"),
    ("version: 1", "version: 2", "version", "2 is not allowed", "write 1"),
    ("provider: gcp", "provider: gpc", f"{WEST}.provider", '"gpc" is not allowed', "did you mean `gcp`?"),
    ("provider: gcp", "provider: azure", f"{WEST}.provider", "not allowed", "write aws or gcp or onprem"),
    ("cpus: 96", "cpus: many", f"{A100}.cpus", '"many" is not a whole number', "plain number"),
    ("cpus: 96", 'cpus: "96"', f"{A100}.cpus", '"96" is not a whole number', "without quotes"),
    ("cpus: 96", "cpus: 9.5", f"{A100}.cpus", "9.5 is not a whole number", "write a whole number"),
    ("cpus: 96", "cpus: yes", f"{A100}.cpus", "true is not a whole number", "write a whole number"),
    ("cpus: 96", "cpus: .nan", f"{A100}.cpus", ".nan is not a number to work with", "ordinary number"),
    ("usd_per_hour: 20", "usd_per_hour: .inf", f"{A100}.usd_per_hour", "not a number to work with", "ordinary number"),
    ("usd_per_hour: 20", "usd_per_hour: -1", f"{A100}.usd_per_hour", "-1 is out of range", "at least 0"),
    ("gpus: 8", "gpus: 17", f"{A100}.gpus", "17 is out of range", "at most 16"),
    ('"000000000000"', "000000000000", "models[0] (chat).release", "read as a number", 'quote it: "000000000000"'),
    ('"000000000000"', '"latest"', "models[0] (chat).release", "not well formed", "first 12 hex digits"),
    ("name: demo", "name: My_Fleet", "name", '"My_Fleet" is not well formed', "lower-case letters"),
    ("https://west.example.com", "west.example.com", f"{WEST}.endpoint", "not well formed", "write http://host:port"),
    ("gs://west", "azure://west", f"{WEST}.store.url", "not well formed", "s3://bucket/prefix"),
    ("[chat, completions]", "[]", "models[0] (chat).tasks", "is empty", "add at least one"),
    ("[chat, completions]", "[chat, chats]", "models[0] (chat).tasks[1]", "not allowed", "did you mean `chat`?"),
    ("hosts: [gpu-1]", "hosts: gpu-1", f"{HOME}.machines.hosts", "not a list", "write a list"),
    ("weights: {home: home}", "weights: home", "weights", '"home" is not a mapping', "write a mapping"),
    ("weights: {home: home}", "weights:", "weights", "has no value", "write a mapping"),
    # Said twice.
    ("region: zurich", "region: zurich\n    region: basel", f"{HOME}.region", "given twice", "other is on line 25"),
    ("name: west", "name: east", "sites[1] (east).name", "is used twice", "the first is sites[0]"),
    ("https://west.", "https://EAST.", f"{WEST}.endpoint", "site endpoint", "the first is sites[0]"),
    ("name: plain", "name: l4", f"{EAST}.pools[1] (l4).name", "is used twice", "the first is sites[0].pools[0]"),
    ("name: embed", "name: chat", "models[1] (chat).name", "is used twice", "the first is models[0]"),
    ("keys:\n", f'{SECOND_KEY}"{"0" * 64}"}}\n', "keys[1] (me).sha256", "is used twice", "the first is keys[0]"),
    ("keys:\n", f'{SECOND_KEY}"{"1" * 64}"}}\n', None, "", ""),
    (
        "model: chat, site: west, pool: a100",
        "model: chat, site: east, pool: l4",
        "placements[1] (chat @ east)",
        "twice",
        "merge",
    ),
    # Named but not there.
    ("model: chat, site: west", "model: chta, site: west", "placements[1] (chta @ west).model", "no model", "`chat`"),
    ("pool: a100", "pool: a10", f"{CHAT_WEST}.pool", 'no pool at west named "a10"', "did you mean `a100`?"),
    ("pool: a100", "pool: x", f"{CHAT_WEST}.pool", 'no pool at west named "x"', "use one of: a100"),
    ("site: west", "site: wets", "placements[1] (chat @ wets).site", "no site", "did you mean `west`?"),
    ("{home: home}", "{home: hoem}", "weights.home", 'no site named "hoem"', "did you mean `home`?"),
    (
        "  - {model: embed, site: home, pool: l40s, gpus: 0.25}\n",
        "",
        "models[1] (embed)",
        "no placement",
        "model: embed",
    ),
    # Numbers that cannot be.
    ("gpus: 0.25", "gpus: 0.01", f"{EMBED}.gpus", "too little for an engine", "at least 0.05"),
    ("gpus: 0.25", "gpus: 1.5", f"{EMBED}.gpus", "doesn't pack", "use 1 or 2"),
    ("gpus: 0.25", "gpus: 0.33333", f"{EMBED}.gpus", "finer than Ray counts", "use 0.3333"),
    ("gpus: 0.25", "gpus: 0", f"{EMBED}.gpus", "the pool's nodes have GPUs", "a fraction or more"),
    ("gpus: 0.25", "gpus: 4", f"{EMBED}.gpus", "needs 4 GPUs, and a node of the pool has 2", "at most 2"),
    ("pool: l40s, gpus: 0.25", "pool: l40s, cpus: 17", f"{EMBED}.cpus", "needs 17 CPUs", "at most 16"),
    ("    pool: l4\n", "    pool: plain\n", f"{CHAT_EAST}.gpus", "the pool's nodes have no GPU", "`gpus: 0`"),
    (
        "min_replicas: 1",
        "min_replicas: 3",
        f"{CHAT_EAST}.autoscaling.min_replicas",
        "more than max_replicas 2",
        "raise",
    ),
    (
        "min_replicas: 1",
        "policy: utilisation",
        f"{CHAT_EAST}.autoscaling.policy",
        "a replica has 0.5 of one",
        "or write `gpus: 1`",
    ),
    ("gpus: 2}", "gpus: 2, autoscaling: {policy: utilisation}}", None, "", ""),
    (
        "gpus: 0.25}",
        "gpus: 0, autoscaling: {policy: utilisation}}",
        f"{EMBED}.autoscaling.policy",
        "replicas without a GPU",
        "leave it out",
    ),
    ("max_num_seqs: 16", "max_num_seqs: 4096", f"{CHAT_EAST}.batching.max_num_seqs", "more than max_num_b", "lower"),
    ("max_replicas: 2", "max_replicas: 5", f"{CHAT_EAST}.autoscaling.max_replicas", "need 3 nodes", "raise the pool's"),
    ("usd_per_hour: 20", "usd_per_hour: 20, min_nodes: 2", f"{A100}.min_nodes", "more than max_nodes 1", "lower"),
    ("poll_interval_s: 1", "poll_interval_s: 5", "routing.poll_interval_s", "not below state_max_age_s 5", "raise"),
    # Places that don't go together.
    ("accelerator: A100, ", "", f"{A100}.accelerator", "missing", "add `accelerator: …`"),
    ("gpus: 8, ", "gpus: 0, ", f"{A100}.gpus", "A100 accelerators have GPUs", "add `gpus: …`"),
    ('"gs://west/weights"', '"gs://west", profile: x', f"{WEST}.store.profile", "for s3", "credentials_file"),
    ('"s3://east/weights"', '"s3://e", credentials_file: x', f"{EAST}.store.credentials_file", "for gs", "profile"),
    (', endpoint: "https://objects.example.com"', "", f"{HOME}.store.endpoint", "missing", "add `endpoint: https://…`"),
    (", project: example", "", f"{WEST}.machines.project", "missing", "add `project: …`"),
    (", zones: [europe-west4-a]", "", f"{WEST}.machines.zones", "one zone", "exactly one"),
    ("usd_per_hour: 0.5", "usd_per_hour: 0.5, max_nodes: 2", f"{L40S}.max_nodes", "hosts lists 1", "every worker"),
    ("tasks: [embeddings]", "tasks: [embeddings, chat]", "models[1] (embed).tasks", "either writes", "two models"),
    ("tasks: [embeddings]", "tasks: [score, classify]", None, "", ""),
    (
        "tasks: [embeddings]",
        "tasks: [embeddings, transcription]",
        "models[1] (embed).tasks",
        "transcribes does nothing else",
        "transcription alone",
    ),
    ("tasks: [embeddings]", "tasks: [embeddings, embeddings]", "models[1] (embed).tasks", "2 times", "once"),
]


@pytest.mark.parametrize(("old", "new", "field", "message", "fix"), MISTAKES)
def test_one_mistake(old: str, new: str, field: str | None, message: str, fix: str) -> None:
    assert_mistake(old, new, field, message, fix)


def test_a_right_file_has_no_problems(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    assert problems(FLEET) == []
    assert load(path).site("west").pool("a100").gpus == 8


def test_the_committed_fleet_is_right() -> None:
    assert isinstance(load(ROOT / "fleet.yaml"), FleetSpec)


def test_every_mistake_at_once_in_line_order(tmp_path: Path) -> None:
    text = FLEET
    for old, new in [
        ("provider: aws", "provider: awz"),
        ("accelerator: L4, gpus: 1", "accelerator: L4, gpus: one"),
        ("pool: a100", "pool: a10"),
        ("gpus: 0.25", "gpus: 1.5"),
        ("{home: home}", "{home: hoem, cache: x}"),
        ("poll_interval_s: 1", "poll_interval_s: 9"),
    ]:
        text = text.replace(old, new, 1)
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(InvalidFleet) as caught:
        load(path)
    assert [(problem.line, problem.field) for problem in caught.value.problems] == [
        (5, f"{EAST}.provider"),
        (12, f"{L4}.gpus"),
        (42, f"{CHAT_WEST}.pool"),
        (43, f"{EMBED}.gpus"),
        (44, "weights.cache"),
        (44, "weights.home"),
        (47, "routing.poll_interval_s"),
    ]
    report = str(caught.value)
    assert report.startswith(f'{path} has 7 problems:\n{path}:5: {EAST}.provider: "awz" is not allowed\n    fix: ')


def test_placements_that_fit_alone_but_not_together() -> None:
    text = FLEET.replace("gpus: 2, cpus: 16", "gpus: 1, cpus: 16").replace(
        "  - {model: embed, site: home, pool: l40s, gpus: 0.25}\n",
        "  - {model: embed, site: home, pool: l40s, gpus: 0.6}\n  - {model: chat, site: home, pool: l40s, gpus: 0.6}\n",
    )
    (problem,) = problems(text)
    assert (problem.line, problem.field) == (31, f"{L40S}.max_nodes")
    assert "need 2 nodes, and there are at most 1" in problem.message
    assert "raise it to 2" in problem.fix


def test_a_second_pool_on_premises() -> None:
    second = "      - {name: more, instance_type: server, usd_per_hour: 0.5}\n"
    (problem,) = problems(FLEET.replace("models:\n", second + "models:\n", 1))
    assert problem.field == f"{HOME}.pools"
    assert "a site of each" in problem.fix


LETTERS = "abcdefghijklmnopqrstuvwxyz"
BOMB = "a: &a [x, x]\n" + "".join(f"{k}: &{k} [*{j}, *{j}]\n" for j, k in pairwise(LETTERS))


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the file is empty"),
        ("# nothing\n", 1, "the file is empty"),
        ("- a\n- b\n", 1, "not a mapping"),
        ("name: [1, 2\nsites: 3\n", 2, "not YAML: while parsing a flow sequence"),
        ("name: demo\n  version: 1\n", 2, "not YAML"),
        ("name: demo\n---\nname: other\n", 2, "not YAML: expected a single document"),
        ('name: "\\UFFFFFFFF"\n', 1, "not YAML"),
        ("name: demo\nversion: \x07\n", 2, "character #x0007 is not allowed"),
        ("name: " + "[" * 5000 + "]" * 5000, 1, "nested too deeply"),
        ("x: " + "[" * 50 + "]" * 50, 1, "levels deep"),
        ("a: &a [&b [*a]]\n", 1, "levels deep"),
        (BOMB, 1, "more than 100000 values"),
    ],
)
def test_what_cannot_be_read(text: str, line: int, message: str) -> None:
    (problem,) = problems(text)
    assert problem.line == line
    assert message in problem.message
    assert problem.fix


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("!!python/object/apply:os.system [id]", "tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("!!int x", "cannot be read as int"),
        ("2001-99-99", "cannot be read as timestamp"),
        ('"\\ud800"', "cannot be read as str"),
        ("!!set {a}", "tag tag:yaml.org,2002:set is not known"),
        ("1e999", "is not a whole number"),
        ("9" * 5000, "cannot be read as int"),
        ("1" + "0" * 400, "not a number to work with"),
        ("{? [a]: 1}", "a field's name must be a word"),
    ],
)
def test_values_that_yaml_allows_and_we_do_not(value: str, message: str) -> None:
    found = problems(FLEET.replace("cpus: 96", f"cpus: {value}"))
    assert any(message in problem.message and problem.line == 22 for problem in found), found


def test_anchors_are_followed_to_where_the_mistake_is() -> None:
    text = FLEET.replace("batching: {", "batching: &batching {bad: 1, ").replace(
        "pool: a100,", "pool: a100, batching: *batching,"
    )
    first, second = problems(text)
    assert (first.line, first.field) == (40, f"{CHAT_EAST}.batching.bad")
    assert second.field == f"{CHAT_WEST}.batching.bad"


def test_terminal_escapes_are_shown_not_sent() -> None:
    for problem in problems(FLEET.replace("name: demo", '"na\\em\\ne": "\\e[31mred"')):
        assert (problem.field + problem.message + problem.fix).isprintable()


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"name: demo\nsites: \xff\n", 2, "byte #xff is not UTF-8"),
        (b"#" * (MAX_BYTES + 1), 1, "larger than 1 MiB"),
        (None, 1, "no such file"),
    ],
)
def test_files_that_cannot_be_loaded(tmp_path: Path, content: bytes | None, line: int, message: str) -> None:
    path = tmp_path / "fleet.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidFleet, match=message) as caught:
        load(path)
    assert [problem.line for problem in caught.value.problems] == [line]


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + FLEET.replace("\n", "\r\n").encode())
    assert load(path).name == "demo"


POLICIES = "{a: {preset: weighted, weights: {east: 1}}, b: {preset: primary_standby, order: [east]}}"
NASTY = [
    "",
    "~",
    "[]",
    "{}",
    "-1",
    "0",
    "1e15",
    ".nan",
    "yes",
    "*x",
    "&x {}",
    "<<",
    "!!binary x",
    '"\\ud800"',
    "[[a]]",
    "{a: 1}",
]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_no_file_is_too_broken_to_report(data: st.DataObject) -> None:
    lines = FLEET.replace("routing: {", f"routing:\n  policies: {POLICIES}\nx: {{").splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["drop", "repeat", "value", "noise"]))
        if kind == "drop":
            del lines[at]
        elif kind == "repeat":
            lines.insert(at, lines[data.draw(st.integers(0, len(lines) - 1))])
        elif kind == "value":
            parts = lines[at].split(": ")
            parts[data.draw(st.integers(0, len(parts) - 1))] = data.draw(st.sampled_from(NASTY))
            lines[at] = ": ".join(parts)
        else:
            lines[at] += data.draw(st.text(max_size=8))
    text = "\n".join(lines)
    found = problems(text)
    assert found == sorted(found, key=lambda problem: problem.line)
    assert all(problem.message and problem.fix for problem in found)
    assert all(1 <= problem.line <= len(text.splitlines()) + 1 for problem in found)
