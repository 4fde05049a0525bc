"""Mistakes in what says where requests may go: policies, keys, jurisdictions, hosted targets, limits."""

import pytest

from tests.clusters.mistakes import assert_mistake

EMBED_MODEL, KEY, FAR = "models[1] (embed)", "keys[0] (me)", "hosted[0] (far)"
HEAD = "- {name: me"
AGE = "state_max_age_s: 5"
MACHINES = "machines: {head: c7i.xlarge}"
SECOND_OFFER = "{model: chat, name: x, usd_per_million_input: 1, usd_per_million_output: 2}"
SPLIT = "split: {preset: weighted, weights: {east: 60, west: 40, home: 0}}"
STANDBY = "standby: {preset: primary_standby, order: [home, east]}"
POLICY = "routing.policies.mine"


def policy(settings: str) -> str:
    return f"{AGE}, policies: {{mine: {{{settings}}}}}"


# Old text, new text, field, part of the message, part of the fix.
MISTAKES = [
    # Said twice.
    ("name: far\n", "name: east\n", "hosted[0] (east).name", "is used twice", "the first is sites[0]"),
    (
        "usd_per_million_output: 2}",
        f"usd_per_million_output: 2}}\n      - {SECOND_OFFER}",
        f"{FAR}.models[1] (x).model",
        "is used twice",
        "the first is hosted[0].models[0]",
    ),
    # Named but not there.
    ("tasks: [embeddings]", "tasks: [embeddings], policy: fastst", f"{EMBED_MODEL}.policy", "no policy", "`fastest`"),
    (HEAD, f"{HEAD}, policy: cheapish", f"{KEY}.policy", 'no policy named "cheapish"', "did you mean `cheapest`?"),
    (HEAD, f"{HEAD}, policy: fastest, models: [embed]", None, "", ""),
    (HEAD, f"{HEAD}, models: [embed, chst]", f"{KEY}.models[1]", 'no model named "chst"', "did you mean `chat`?"),
    (HEAD, f"{HEAD}, jurisdictions: [us, zz]", f"{KEY}.jurisdictions[1]", 'named "zz"', "use one of: au, ch, eu, us"),
    (HEAD, f"{HEAD}, jurisdictions: [au]", None, "", ""),
    ("model: chat, name: far", "model: caht, name: far", f"{FAR}.models[0] (far/chat).model", "no model", "`chat`"),
    # Nowhere to go.
    (
        "tasks: [embeddings]",
        "tasks: [embeddings], jurisdictions: [us, eu]",
        f"{EMBED_MODEL}.jurisdictions",
        "every placement and hosted target of the model is elsewhere (ch)",
        "allow one of those",
    ),
    ("tasks: [embeddings]", "tasks: [embeddings], jurisdictions: [us, ch]", None, "", ""),
    ("tasks: [chat, completions]", "tasks: [chat], jurisdictions: [au]", None, "", ""),
    # Policies that say too little, or too much.
    (AGE, f"{AGE}, policy: split, policies: {{{SPLIT}, {STANDBY}}}", None, "", ""),
    (AGE, f"{AGE}, policies: {{balanced: {{ttft_target_s: 2}}}}", None, "", ""),
    (
        AGE,
        f"{AGE}, policies: {{quick: {{ttft_s: 2}}}}",
        "routing.policies.quick.ttft_s",
        "unknown field",
        "did you mean `ttft_target_s`?",
    ),
    (
        AGE,
        f"{AGE}, policies: {{quick: {{ttft_target_s: 0}}}}",
        "routing.policies.quick.ttft_target_s",
        "0 is out of range",
        "write more than 0 (seconds to the first token that cost nothing)",
    ),
    (AGE, f"{AGE}, policies: {{Quick: {{}}}}", "routing.policies.Quick", '"Quick" is not well formed', "lower-case"),
    (
        AGE,
        f"{AGE}, policies: {{preset: fast}}",
        "routing.policies.preset",
        '"fast" is not a mapping',
        "write a mapping",
    ),
    (AGE, f"{AGE}, policies: [fast]", "routing.policies", "is not a mapping", "write a mapping"),
    (AGE, f"{AGE}, policy: splt, policies: {{{SPLIT}}}", "routing.policy", "no policy", "did you mean `split`?"),
    (AGE, f"{AGE}, policy: weighted", "routing.policy", "says nothing of its weights", "`preset: weighted`"),
    (AGE, policy("preset: weighted"), f"{POLICY}.weights", "missing", "add `weights: {SITE: 60, OTHER: 40}`"),
    (AGE, policy("preset: weighted, weights: {east: 0}"), f"{POLICY}.weights", "every share is 0", "more than 0"),
    (AGE, policy("preset: weighted, weights: {east: 1, wset: 1}"), f"{POLICY}.weights.wset", "no site", "`west`"),
    (AGE, policy("preset: weighted, weights: {east: 1, west: -1}"), f"{POLICY}.weights.west", "-1 is not", "0 or more"),
    (AGE, policy("preset: weighted, weights: {east: x}"), f"{POLICY}.weights.east", "not a number", "plain number"),
    (AGE, policy("weights: {east: 1}"), f"{POLICY}.weights", "only weighted uses", "write `preset: weighted`, or"),
    (AGE, policy("preset: primary_standby"), f"{POLICY}.order", "missing", "add `order: [SITE, OTHER]`"),
    (AGE, policy("preset: primary_standby, order: [east, x]"), f"{POLICY}.order[1]", "no site", "use one of: east"),
    (AGE, policy("preset: primary_standby, order: [east, east]"), f"{POLICY}.order[1]", "twice", "each site once"),
    (AGE, policy("preset: fastest, order: [east]"), f"{POLICY}.order", "only primary_standby uses", "or remove order"),
    # Numbers that don't go together.
    (AGE, f"{AGE}, health: {{ejection_s: 300}}", "routing.health.ejection_s", "more than max_ejection_s 120", "lower"),
    (
        AGE,
        f"{AGE}, hold: {{max_waiting: 9}}",
        "routing.hold.max_waiting_per_tenant",
        "256 is more than max_waiting 9",
        "lower max_waiting_per_tenant",
    ),
    (
        MACHINES,
        f"port: 9\n  serve_port: 9\n  {MACHINES}",
        "ingress.serve_port",
        "cannot share port 9",
        "change serve_port",
    ),
]


@pytest.mark.parametrize(("old", "new", "field", "message", "fix"), MISTAKES)
def test_one_mistake(old: str, new: str, field: str | None, message: str, fix: str) -> None:
    assert_mistake(old, new, field, message, fix)
