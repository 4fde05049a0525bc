"""What an engine gets of a card, and the batching that follows from it."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ray.util.accelerators import accelerators

from clusters.accelerators import (
    CARDS,
    CONTEXT_GB,
    LEAST_ENGINE_GB,
    RAY_TYPES,
    engine_gb,
    least_gpus,
    memory_utilization,
)
from clusters.batching import BatchingSpec, derived
from clusters.check import problems
from clusters.render import site_config
from clusters.spec import FleetSpec
from tests.clusters.mistakes import FLEET, assert_mistake

CHAT_EAST, CHAT_WEST, EMBED = (
    "placements[0] (chat @ east)",
    "placements[1] (chat @ west)",
    "placements[2] (embed @ home)",
)
L4 = "sites[0] (east).pools[0] (l4).accelerator"
BATCHING = "batching: {max_num_seqs: 16, max_num_batched_tokens: 2048}"
MISTAKES = [
    # 0.11 of 24.1 GB, less 5 %, less 0.6 GB.
    ("gpus: 0.5", "gpus: 0.11", f"{CHAT_EAST}.gpus", "leaves the engine 1.9 GB beside 0.6 GB", "at least 0.12"),
    ("gpus: 0.5", "gpus: 0.12", None, "", ""),
    ("gpus: 0.25", "gpus: 0.05", f"{EMBED}.gpus", "it needs 2 GB", "at least 0.06"),
    ("accelerator: L40S, gpus: 2", "accelerator: V100, gpus: 2", None, "", ""),
    ("accelerator: L4,", "accelerator: L44,", L4, 'there is no accelerator "L44"', "did you mean `L4`?"),
    ("accelerator: L4,", "accelerator: l4,", L4, 'no accelerator "l4"', "did you mean `L4`?"),
    (
        "accelerator: L4,",
        "accelerator: gtx-980,",
        L4,
        'no accelerator "gtx-980"',
        "use one of Ray's accelerator types, or one of T4,",
    ),
    (BATCHING, "batching: {max_num_seqs: 4096}", None, "", ""),
    (BATCHING, "batching: {max_num_batched_tokens: 16}", None, "", ""),
    (
        BATCHING,
        "batching: {chunked_prefill: false, max_num_batched_tokens: 512}",
        f"{CHAT_EAST}.batching.max_num_batched_tokens",
        "512 tokens don't hold a prompt of max_model_len 1024",
        "raise it to 1024, or set `chunked_prefill: true`",
    ),
    (
        "pool: l40s, gpus: 0.25",
        "pool: l40s, gpus: 0.25, batching: {max_num_batched_tokens: 256}",
        f"{EMBED}.batching.max_num_batched_tokens",
        "256 tokens don't hold a prompt of max_model_len 512",
        "raise it to 512",
    ),
    ("pool: l40s, gpus: 0.25", "pool: l40s, gpus: 0.25, speculation: {}", f"{EMBED}.speculation", "guessed", "remove"),
    ("gpus: 0.5", "gpus: 0.5\n    speculation: {tokens: 4}", None, "", ""),
]
shares = st.one_of(st.integers(1, 8).map(float), st.integers(5, 100).map(lambda hundredths: hundredths / 100))


@pytest.mark.parametrize(("old", "new", "field", "message", "fix"), MISTAKES)
def test_what_an_engine_cannot_do_is_told_beforehand(
    old: str, new: str, field: str | None, message: str, fix: str
) -> None:
    assert_mistake(old, new, field, message, fix)


def test_accelerators_are_those_that_ray_knows() -> None:
    assert {value for name, value in vars(accelerators).items() if not name.startswith("_")} == RAY_TYPES


def test_cards_are_named_as_ray_names_them_where_it_does() -> None:
    named = {value for name, value in vars(accelerators).items() if name.startswith("NVIDIA_")}
    assert CARDS.keys() - named == {"A10", "RTX4090"}


@pytest.mark.parametrize("name", CARDS)
def test_neighbours_and_their_contexts_fit_on_a_card(name: str) -> None:
    card = CARDS[name]
    for count in range(1, 8):
        share = int(10_000 / count) / 10_000
        if share < least_gpus(card):
            break
        assert count * (memory_utilization(name, share) * card.memory_gb + CONTEXT_GB) <= card.memory_gb


@pytest.mark.parametrize("name", CARDS)
def test_the_least_share_holds_an_engine_and_no_smaller_one_does(name: str) -> None:
    least = least_gpus(CARDS[name])
    assert engine_gb(CARDS[name], least) >= LEAST_ENGINE_GB > engine_gb(CARDS[name], least - 0.01)


def test_of_an_unknown_card_a_tenth_of_the_share_is_left() -> None:
    assert memory_utilization("XYZ", 0.5) == 0.45
    assert memory_utilization(None, 4) == 0.9


def derive(accelerator: str | None, gpus: float, max_model_len: int = 8192, **given: Any) -> BatchingSpec:
    return derived(BatchingSpec(**given), accelerator, gpus, 4, max_model_len, writes=True)


@pytest.mark.parametrize(("name", "tokens"), [("H100", 8192), ("A100-80G", 2048), ("L4", 2048), ("T4", 2048)])
def test_tokens_in_a_step_are_those_that_vllms_own_servers_take(name: str, tokens: int) -> None:
    assert derive(name, 1).max_num_batched_tokens == tokens


@given(st.sampled_from(sorted(CARDS)), shares, shares, st.sampled_from([256, 8192, 131_072]))
def test_more_of_a_card_never_means_fewer_sequences(name: str, one: float, other: float, max_model_len: int) -> None:
    small, large = (derive(name, gpus, max_model_len) for gpus in sorted((one, other)))
    assert 1 <= small.max_num_seqs <= large.max_num_seqs <= max(8, CARDS[name].ridge)
    assert small.max_num_seqs <= small.max_num_batched_tokens


@given(st.sampled_from([None, "XYZ", *CARDS]), st.sampled_from([0.0, 0.5, 1.0]), st.booleans(), st.integers(16, 10_000))
def test_what_was_derived_stays_as_it_is(name: str | None, gpus: float, writes: bool, max_model_len: int) -> None:
    once = derived(BatchingSpec(), name, gpus, 1, max_model_len, writes)
    again = BatchingSpec.model_validate(once.model_dump())
    assert derived(again, "H100", 1, 8, 16, not writes) == again == once
    assert once.chunked_prefill is writes
    assert once.max_num_batched_tokens >= (once.max_num_seqs if writes else max_model_len)


def test_what_the_file_says_wins() -> None:
    assert derive("H100", 1, max_num_seqs=3).max_num_seqs == 3
    assert derive("H100", 1, max_num_seqs=3).max_num_batched_tokens == 8192
    assert derive("L4", 1, max_num_seqs=4096).max_num_batched_tokens == 4096
    assert derive("L4", 1, max_num_batched_tokens=256) == BatchingSpec(max_num_seqs=120, max_num_batched_tokens=256)


def test_cpus_run_few_sequences() -> None:
    one, eight = (derived(BatchingSpec(), None, 0, cpus, 1024, writes=True) for cpus in (1, 8))
    assert (one.max_num_seqs, one.max_num_batched_tokens) == (16, 512)
    assert (eight.max_num_seqs, eight.max_num_batched_tokens) == (16, 2048)


def test_a_fleet_and_its_rendered_configs_have_numbers() -> None:
    assert problems(FLEET) == []
    fleet = _fleet()
    chat, embed = fleet.placements[1], fleet.placements[2]
    assert (chat.capacity, chat.batching.max_num_batched_tokens) == (152, 2048)
    assert embed.batching == BatchingSpec(max_num_seqs=160, max_num_batched_tokens=4096, chunked_prefill=False)
    config = site_config(fleet, fleet.site("west"), "127.0.0.1", 8000)
    (rendered,) = [app["args"]["placement"] for app in config["applications"] if app["name"] == "chat"]
    assert rendered["batching"] == chat.batching.model_dump(exclude_none=True)
    assert FleetSpec.model_validate(fleet.model_dump(mode="json")) == fleet


def _fleet() -> FleetSpec:
    return FleetSpec.model_validate(yaml.safe_load(FLEET))
