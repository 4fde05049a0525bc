"""What is moved: safetensors of random bytes, which no disk or wire can make smaller."""

import json
from pathlib import Path

import numpy as np

SHARD_BYTES = 512 * 2**20
TENSOR = (8192, 4096)
TENSOR_BYTES = TENSOR[0] * TENSOR[1] * 2
HEADER_ALIGNMENT = 8


def make_release(directory: Path, gib: int) -> int:
    """Writes shards of 512 MiB and a small file beside them. Returns their bytes."""
    directory.mkdir(parents=True)
    count = gib * 2**30 // SHARD_BYTES
    for number in range(count):
        _write_shard(directory / f"model-{number + 1:05}-of-{count:05}.safetensors", number)
    (directory / "config.json").write_text(
        json.dumps({"architectures": ["RandomForCausalLM"], "torch_dtype": "bfloat16"})
    )
    return sum(path.stat().st_size for path in directory.iterdir())


def _write_shard(path: Path, seed: int) -> None:
    """One tensor in memory at a time."""
    chance = np.random.Generator(np.random.SFC64(seed))
    tensors = SHARD_BYTES // TENSOR_BYTES
    with path.open("wb") as file:
        file.write(_header(tensors))
        for _ in range(tensors):
            file.write(chance.bytes(TENSOR_BYTES))


def _header(tensors: int) -> bytes:
    fields = {
        f"model.layers.{number}.weight": {
            "dtype": "BF16",
            "shape": TENSOR,
            "data_offsets": (number * TENSOR_BYTES, (number + 1) * TENSOR_BYTES),
        }
        for number in range(tensors)
    }
    text = json.dumps(fields).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
