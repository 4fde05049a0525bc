"""Engine models from data sheets, for cards that nobody has calibrated: assumptions, not measurements."""

from dataclasses import dataclass

from autoscaling.simulate.engine_model import EngineModel
from autoscaling.simulate.errors import UnknownCard
from clusters.accelerators import CARDS, engine_gb

BANDWIDTH_USED = 0.8
"""Share of a card's memory bandwidth that decoding reaches,"""
FLOPS_USED = 0.5
"""and of its peak that prefill does. Both are assumed: usual for vLLM with dense models, measured by nobody here."""
ACTIVATIONS = 0.06
"""Share of a card's memory for activations and captured graphs."""
PARALLEL = 0.85
"""Share of their sum that several cards of one replica reach."""
HOST_STEP_S = 0.002
SEQUENCE_S = 30e-6
REQUEST_S = 0.01


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
    kv_bytes = (engine_gb(card, gpus) * max(gpus, 1) - ACTIVATIONS * card.memory_gb * gpus) * 1e9 - weights
    if kv_bytes < size.kv_bytes_per_token:
        raise UnknownCard(
            f"{gpus:g} {accelerator} have no room for a model of {size.parameters / 1e9:.1f} billion parameters"
        )
    read_s = 1 / (BANDWIDTH_USED * card.bandwidth_gb_s * 1e9 * speed)
    return EngineModel(
        source=f"assumed from the data sheet of {accelerator}: {gpus:g} cards, {size.parameters / 1e9:.1f} billion "
        f"parameters in bf16, {BANDWIDTH_USED:.0%} of its bandwidth, {FLOPS_USED:.0%} of its peak",
        step_s=HOST_STEP_S + weights * read_s,
        sequence_s=SEQUENCE_S,
        kv_token_s=size.kv_bytes_per_token * read_s,
        prefill_token_s=2 * size.parameters / (FLOPS_USED * card.tflops * 1e12 * speed),
        request_s=REQUEST_S,
        kv_tokens=int(kv_bytes / size.kv_bytes_per_token),
    )
