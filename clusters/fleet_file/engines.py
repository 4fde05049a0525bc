"""Whether an engine can run as a placement sets it: its batching, its speculation, its share of a card's memory."""

from collections.abc import Iterator

from clusters.accelerators import CARDS, CONTEXT_GB, LEAST_ENGINE_GB, engine_gb, least_gpus
from clusters.fleet_file.document import Mistake
from clusters.fleet_file.draft import Part
from clusters.spec import WRITING


def unworkable(placement: Part, model: Part | None) -> Iterator[Mistake]:
    """What vLLM would refuse."""
    batching = placement["batching"]
    seqs, tokens = batching["max_num_seqs"], batching["max_num_batched_tokens"]
    fixed = batching.gives("max_num_batched_tokens") and tokens is not None
    if fixed and batching.gives("max_num_seqs") and seqs is not None and seqs > tokens:
        message = f"max_num_seqs {seqs} is more than max_num_batched_tokens {tokens}"
        yield batching.mistake("max_num_seqs", message, "lower max_num_seqs or raise max_num_batched_tokens")
    if model is None or model["tasks"] is None:
        return
    writes = bool(WRITING.intersection(model["tasks"]))
    chunked = batching["chunked_prefill"] if batching.gives("chunked_prefill") else writes
    longest = model["max_model_len"]
    if fixed and longest is not None and chunked is False and tokens < longest:
        message = f"{tokens} tokens don't hold a prompt of max_model_len {longest}, which may not be cut"
        fix = f"raise it to {longest}, or set `chunked_prefill: true`"
        yield batching.mistake("max_num_batched_tokens", message, fix)
    if placement.gives("speculation") and not writes:
        message = f"{model['name']} writes no tokens that could be guessed"
        yield placement.mistake("speculation", message, "remove it")


def cramped(placement: Part, pool: Part) -> Iterator[Mistake]:
    """A share of a card that leaves an engine too little memory. Of cards that are not known, nothing is said."""
    gpus, card = placement["gpus"], CARDS.get(pool["accelerator"] or "")
    if card is None or not gpus or engine_gb(card, gpus) >= LEAST_ENGINE_GB:
        return
    message = (
        f"{gpus:g} of an {pool['accelerator']} with {card.memory_gb:g} GB leaves the engine "
        f"{max(0.0, engine_gb(card, gpus)):.1f} GB beside {CONTEXT_GB:g} GB of CUDA context: "
        f"it needs {LEAST_ENGINE_GB:g} GB"
    )
    yield placement.mistake("gpus", message, f"use at least {least_gpus(card):g}, or a card with more memory")
