"""vLLM's continuous batching: `batching:` and `speculation:` in `fleet.yaml`, and what follows from the card."""

from math import log2
from typing import Literal

from pydantic import Field

from clusters.accelerators import CARDS, Card, engine_gb
from clusters.fields import Spec

TYPICAL_TOKENS = 1400
"""Prompt and answer of a mean request: 1,155 and 211 in Azure's trace of conversations, 2023."""
KV_BYTES_PER_TOKEN = 2**16
"""Between 12 KiB of Qwen2.5 0.5B and 128 KiB of Llama 3.1 8B, both bf16. Rather low: a sequence too many costs a prompt
that is read twice, one too few an idle card."""
KV_SHARE = 0.5
"""Of an engine's memory: the rest is taken to be weights."""
LONGEST_STEP_S = 0.75
"""A step full of prompts holds up everybody's next token. At half the card's peak, in a model that fills the rest."""
GRAPH_STEP = 8
"""vLLM captures CUDA graphs for multiples of it."""
CPU_SEQUENCES = 16
"""Where a server core's arithmetic takes as long as its memory."""
CPU_TOKENS = 512
"""Per CPU, up to vLLM's own 2048."""


class BatchingSpec(Spec):
    """The defaults are for accelerators that rayfleet does not know: else, what is unset is `derived`."""

    max_num_seqs: int = Field(64, ge=1, description="sequences in one batch; also the placement's capacity per replica")
    max_num_batched_tokens: int = Field(2048, ge=16, description="tokens in one step")
    chunked_prefill: bool = Field(True, description="whether a long prompt is read in steps, beside others' tokens")
    max_wait_ms: float | None = Field(
        None, ge=0, le=10_000, description="models of tensors only: ms that a batch may wait to fill; unset means 5"
    )


class SpeculationSpec(Spec):
    """Tokens guessed from the prompt and checked in one step: quicker where answers repeat it, else slower."""

    method: Literal["ngram"] = "ngram"
    tokens: int = Field(4, ge=1, le=32, description="guessed at once")
    max_ngram: int = Field(4, ge=1, le=32, description="longest run of tokens that is looked up in what came before")


def derived(
    given: BatchingSpec, accelerator: str | None, gpus: float, cpus: float, max_model_len: int, writes: bool
) -> BatchingSpec:
    """`given`, and for what it leaves unset, what suits a replica with so many cards, or CPUs where `gpus` is 0.
    `writes` is whether the model writes tokens: others read whole prompts."""
    filled = BatchingSpec(chunked_prefill=writes)
    card = CARDS.get(accelerator or "")
    if not gpus:
        filled = _update(filled, CPU_SEQUENCES, min(2048, CPU_TOKENS * max(1, int(cpus))))
    elif card:
        filled = _update(filled, _sequences(card, gpus, max_model_len), _tokens(card))
    asked = filled.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})
    return asked if "max_num_batched_tokens" in given.model_fields_set else _roomy(asked, max_model_len)


def _update(batching: BatchingSpec, sequences: int, tokens: int) -> BatchingSpec:
    return batching.model_copy(update={"max_num_seqs": sequences, "max_num_batched_tokens": tokens})


def _sequences(card: Card, gpus: float, max_model_len: int) -> int:
    """As many as the KV cache holds; but beyond the ridge, each more only slows the others down."""
    kv_bytes = KV_SHARE * engine_gb(card, gpus) * max(1, gpus) * 1e9
    fitting = kv_bytes / (KV_BYTES_PER_TOKEN * min(TYPICAL_TOKENS, max_model_len))
    return max(1, int(min(fitting, card.ridge)) // GRAPH_STEP) * GRAPH_STEP


def _tokens(card: Card) -> int:
    """The power of two that the card reads within LONGEST_STEP_S. The share does not matter: a smaller one has a
    smaller model."""
    parameters = (1 - KV_SHARE) * card.memory_gb * 1e9 / 2
    flops = 0.5 * card.tflops * 1e12
    return 1 << int(log2(LONGEST_STEP_S * flops / (2 * parameters)))


def _roomy(batching: BatchingSpec, max_model_len: int) -> BatchingSpec:
    """With the tokens that vLLM insists on: one for each sequence, and a whole prompt where it may not be cut."""
    least = max(batching.max_num_seqs, 0 if batching.chunked_prefill else max_model_len)
    return batching.model_copy(update={"max_num_batched_tokens": max(batching.max_num_batched_tokens, least)})
