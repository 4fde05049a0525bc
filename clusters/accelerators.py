"""What is known of accelerators before anything starts, and what an engine on a share of one has to itself."""

from dataclasses import dataclass
from math import ceil

CONTEXT_GB = 0.6
"""A process's CUDA context and libraries. vLLM looks at the card after they are there, so its share has none of it."""
SLACK = 0.05
"""Of a share: fragments, and CUDA graphs beyond vLLM's estimate. Of an unknown card, twice that, contexts included."""
CPU_KV_CACHE_BYTES = 128 * 2**20
"""Of an engine on CPUs, which shares their memory with everything else."""
LEAST_ENGINE_GB = 2.0
"""Half a billion parameters in bf16, what a step works with, and a KV cache that is worth the name."""


@dataclass(frozen=True)
class Card:
    """Dense bf16 without sparsity (fp16 on T4), and bandwidth: NVIDIA's data sheets. Memory: what the driver shows,
    which with ECC is less than the sheet's on some."""

    memory_gb: float
    bandwidth_gb_s: float
    tflops: float

    @property
    def ridge(self) -> float:
        """Tokens in a step of bf16 weights at which computing takes as long as reading the weights."""
        return 1000 * self.tflops / self.bandwidth_gb_s


_A100_80G = Card(85.9, 2039, 312)

CARDS = {
    "T4": Card(16.1, 320, 65),
    "L4": Card(24.1, 300, 121),
    "A10": Card(24.1, 600, 125),
    "A10G": Card(24.1, 600, 70),
    "RTX4090": Card(25.7, 1008, 165),
    "L40S": Card(48.3, 864, 362),
    "A100": _A100_80G,
    "A100-40G": Card(42.9, 1555, 312),
    "A100-80G": _A100_80G,
    "H100": Card(85.5, 3350, 989),
    "H200": Card(150.8, 4800, 989),
    "B200": Card(192.3, 8000, 2250),
}
"""By Ray's accelerator type, where it has one."""

_TYPES = """
    A100 A100-40G A100-80G A10G AMD-Instinct-MI100 AMD-Instinct-MI210 AMD-Instinct-MI250X
    AMD-Instinct-MI250X-MI250 AMD-Instinct-MI300A AMD-Instinct-MI300X-HF AMD-Instinct-MI300X-OAM
    AMD-Instinct-MI308X AMD-Instinct-MI325X-OAM AMD-Instinct-MI350X-OAM AMD-Instinct-MI355X-OAM
    AMD-Radeon-HD-7900 AMD-Radeon-R9-200-HD-7900 Apple-Silicon Ascend910B Ascend910B4 B200 B300 FURIOSA_RNGD
    GB200 GB300 H100 H20 H200 Intel-GAUDI Intel-GPU-Max-1100 Intel-GPU-Max-1550 K80 L4 L40S M1 M1-Max M1-Pro
    M1-Ultra M2 M2-Max M2-Pro M2-Ultra M3 M3-Max M3-Pro MOBILINT_ARIES MOBILINT_REGULUS MXC500 MXC550 P100 P4
    RTX-PRO-6000 T4 TPU-V2 TPU-V3 TPU-V4 TPU-V5LITEPOD TPU-V5P TPU-V6E TPU-V7X V100 aws-neuron-core
"""
RAY_TYPES = frozenset(_TYPES.split())
"""Every accelerator type that Ray knows. A name that is neither here nor in `CARDS` is most likely mistyped."""


def engine_gb(card: Card, gpus: float) -> float:
    """On each of its cards, what an engine has for weights, activations and KV cache. May be negative."""
    return card.memory_gb * min(gpus, 1) * (1 - SLACK) - CONTEXT_GB


def least_gpus(card: Card) -> float:
    """The smallest share of a card that holds an engine, in hundredths."""
    return ceil(100 * (LEAST_ENGINE_GB + CONTEXT_GB) / (card.memory_gb * (1 - SLACK))) / 100


def memory_utilization(accelerator: str | None, gpus: float) -> float:
    """vLLM's `gpu_memory_utilization`. Neighbours on a card whose shares add up to 1 fit on it together."""
    card = CARDS.get(accelerator or "")
    share = engine_gb(card, gpus) / card.memory_gb if card else min(gpus, 1) * (1 - 2 * SLACK)
    return round(share, 3)
