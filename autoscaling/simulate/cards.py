"""Engine models from data sheets, for cards that nobody has calibrated: assumptions, not measurements."""

from dataclasses import dataclass

from autoscaling.simulate.engine_model import EngineModel
from autoscaling.simulate.errors import UnknownCard

BANDWIDTH_USED = 0.8
"""Share of a card's memory bandwidth that decoding reaches,"""
FLOPS_USED = 0.5
"""and of its peak that prefill does. Both are assumed: usual for vLLM with dense models, measured by nobody here."""
MEMORY_USED = 0.9
"""vLLM's default share of a card's memory."""
ACTIVATIONS = 0.06
"""Share of a card's memory for activations and captured graphs."""
PARALLEL = 0.85
"""Share of their sum that several cards of one replica reach."""
HOST_STEP_S = 0.002
SEQUENCE_S = 30e-6
REQUEST_S = 0.01


@dataclass(frozen=True)
class Card:
    """From NVIDIA's data sheets: dense bf16, no sparsity."""

    bytes_per_s: float
    flops: float
    memory: float
    """Bytes."""


CARDS = {
    "T4": Card(320e9, 65e12, 16 * 2**30),
    "L4": Card(300e9, 121e12, 24 * 2**30),
    "A10G": Card(600e9, 70e12, 24 * 2**30),
    "L40S": Card(864e9, 362e12, 48 * 2**30),
    "A100": Card(2039e9, 312e12, 80 * 2**30),
    "H100": Card(3350e9, 989e12, 80 * 2**30),
}


@dataclass(frozen=True)
class ModelSize:
    """Of a dense transformer in bf16. The defaults are those of Llama 3.1 8B."""

    parameters: float = 8.03e9
    kv_bytes_per_token: float = 131_072
    """2 (key and value) x layers x KV heads x head size x 2 bytes."""


def assumed_model(accelerator: str, gpus: float = 1, size: ModelSize | None = None) -> EngineModel:
    """Of a replica with so many cards, or that fraction of one: a fraction is taken to have that share of speed and
    memory. Raises UnknownCard."""
    card, size = CARDS.get(accelerator), size or ModelSize()
    if card is None:
        raise UnknownCard(
            f"nothing is known of accelerator {accelerator!r}: only of {', '.join(CARDS)}. "
            "Calibrate a placement on it, and give the file"
        )
    speed = gpus * (PARALLEL if gpus > 1 else 1.0)
    weights = 2 * size.parameters
    kv_bytes = card.memory * gpus * (MEMORY_USED - ACTIVATIONS) - weights
    if kv_bytes < size.kv_bytes_per_token:
        raise UnknownCard(
            f"{gpus:g} {accelerator} have no room for a model of {size.parameters / 1e9:.1f} billion parameters"
        )
    read_s = 1 / (BANDWIDTH_USED * card.bytes_per_s * speed)
    return EngineModel(
        source=f"assumed from the data sheet of {accelerator}: {gpus:g} cards, {size.parameters / 1e9:.1f} billion "
        f"parameters in bf16, {BANDWIDTH_USED:.0%} of its bandwidth, {FLOPS_USED:.0%} of its peak",
        step_s=HOST_STEP_S + weights * read_s,
        sequence_s=SEQUENCE_S,
        kv_token_s=size.kv_bytes_per_token * read_s,
        prefill_token_s=2 * size.parameters / (FLOPS_USED * card.flops * speed),
        request_s=REQUEST_S,
        kv_tokens=int(kv_bytes / size.kv_bytes_per_token),
    )
