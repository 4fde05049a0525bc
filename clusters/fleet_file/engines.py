"""Whether an engine can run as a placement sets it: its batching, its speculation, its share of a card's memory."""

from collections.abc import Iterator

from clusters.accelerators import CARDS, CONTEXT_GB, LEAST_ENGINE_GB, RAY_TYPES, engine_gb, least_gpus
from clusters.fleet_file.document import Mistake, Where
from clusters.fleet_file.draft import Part
from clusters.fleet_file.shape import did_you_mean, quoted
from clusters.fleet_file.tensors import LEAST_MODEL_LEN
from clusters.fleet_file.vllm_arguments import VLLM_ARGUMENTS
from clusters.scaling import ScalingPolicy
from clusters.spec import WRITING, Loading, Task

FIELD_OF = {
    "model": "model",
    "served_model_name": "model",
    "max_num_seqs": "batching.max_num_seqs",
    "max_num_batched_tokens": "batching.max_num_batched_tokens",
    "enable_chunked_prefill": "batching.chunked_prefill",
    "enable_prefix_caching": "prefix_caching",
    "gpu_memory_utilization": "gpus",
    "kv_cache_memory_bytes": "gpus",
    "tensor_parallel_size": "gpus",
    "prefill_context_parallel_size": "gpus",
    "data_parallel_size": "autoscaling.min_replicas",
}
"""vLLM's arguments that follow from the placement, and from which of its fields."""


def contradicting(placement: Part, model: Part | None) -> Iterator[Mistake]:
    """What `engine` says otherwise than the placement or its model, and what vLLM knows nothing of."""
    if model is not None and Task.INFER in (model["tasks"] or ()):
        return
    field_of = _field_of(placement)
    for name, value in (placement["engine"] or {}).items():
        at = (*placement.where("engine"), name)
        if name in field_of:
            yield Mistake(at, f"follows from the placement's {field_of[name]}", f"remove it, and set {field_of[name]}")
        elif name == "max_model_len":
            yield from _too_long(at, value, model)
        elif name == "pipeline_parallel_size":
            yield from _indivisible(at, value, placement["gpus"])
        elif name not in VLLM_ARGUMENTS:
            yield Mistake(at, "vLLM has no such argument", did_you_mean(name, VLLM_ARGUMENTS, "remove it"))


def _field_of(placement: Part) -> dict[str, str]:
    """With those that follow from what is set only here."""
    fields = dict(FIELD_OF)
    if placement.gives("speculation"):
        fields |= dict.fromkeys(("speculative_config", "spec_method", "spec_model", "spec_tokens"), "speculation")
    if placement["loading"] == Loading.STREAMED:
        fields["load_format"] = "loading"
    if placement["autoscaling"]["policy"] == ScalingPolicy.UTILISATION:
        fields["worker_extension_cls"] = "autoscaling.policy"
    return fields


def _too_long(at: Where, tokens: object, model: Part | None) -> Iterator[Mistake]:
    longest = model["max_model_len"] if model is not None else None
    if not isinstance(tokens, int) or tokens < LEAST_MODEL_LEN or (longest is not None and tokens > longest):
        most = "the model's max_model_len" if longest is None else f"{longest}, the model's own"
        yield Mistake(at, f"{quoted(tokens)} is out of range", f"use {LEAST_MODEL_LEN} to {most}")


def _indivisible(at: Where, stages: object, gpus: float | None) -> Iterator[Mistake]:
    if not isinstance(stages, int) or stages < 1:
        yield Mistake(at, f"{quoted(stages)} is out of range", "use a whole number from 1")
    elif gpus is not None and stages > 1 and (gpus < 1 or gpus % stages):
        message = f"a replica's {gpus:g} GPUs are not {stages} stages of whole cards"
        yield Mistake(at, message, "use a divisor of `gpus`, or change that")


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


def unknown(pool: Part) -> Iterator[Mistake]:
    """A misspelt accelerator would get an engine whose share of memory and batches are guessed."""
    name, known = pool["accelerator"], RAY_TYPES | CARDS.keys()
    if name is not None and name not in known:
        fix = did_you_mean(name, known, f"use one of Ray's accelerator types, or one of {', '.join(CARDS)}")
        yield pool.mistake("accelerator", f"there is no accelerator {quoted(name)}", fix)
