"""Tensors in the words of the Open Inference Protocol: as JSON numbers, or as bytes."""

from functools import cache
from math import prod
from types import GenericAlias
from typing import Annotated, Any

import msgspec
import torch

from serve_app.errors import BadRequest
from serve_app.tensors.signature import DATATYPES, Datatype, TensorSpec

DTYPES: dict[Datatype, torch.dtype] = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "BF16": torch.bfloat16,
    "FP32": torch.float32,
    "FP64": torch.float64,
}

Shape = tuple[int, ...]


def from_json(name: str, datatype: Datatype, shape: Shape, data: msgspec.Raw) -> torch.Tensor:
    """Of `data` as it stands in the request: flat, or nested as the shape is. Raises BadRequest."""
    values = _values(name, datatype, len(shape), data)
    try:
        tensor = torch.tensor(values, dtype=DTYPES[datatype])
    except (ValueError, TypeError) as error:
        raise BadRequest(f"The input {name!r} is nested unevenly.", param=name) from error
    except (RuntimeError, OverflowError) as error:
        raise _out_of_range(name, datatype) from error
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise _out_of_range(name, datatype)
    if tensor.dim() > 1 and tuple(tensor.shape) != shape:
        raise BadRequest(f"The input {name!r} has the shape {list(tensor.shape)}, not {list(shape)}.", param=name)
    if tensor.numel() != prod(shape):
        message = f"The input {name!r} has {tensor.numel()} values, and its shape {list(shape)} has {prod(shape)}."
        raise BadRequest(message, param=name)
    return tensor.reshape(shape)


def from_bytes(name: str, datatype: Datatype, shape: Shape, data: memoryview) -> torch.Tensor:
    """Of its values one after another, little-endian. Raises BadRequest."""
    dtype = DTYPES[datatype]
    size = prod(shape) * dtype.itemsize
    if len(data) != size:
        raise BadRequest(
            f"The input {name!r} has {len(data)} bytes, and {datatype} of shape {list(shape)} has {size}.", param=name
        )
    # A copy: torch wants memory that may be written to, and rows of it go into batches.
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    if dtype is torch.bool:
        return raw.ne(0).reshape(shape)
    return raw.view(dtype).reshape(shape)


def misfit(spec: TensorSpec, tensor: torch.Tensor) -> str | None:
    """What value lies outside of the spec's bounds."""
    if not spec.bounded:
        return None
    # As INT64: torch compares no unsigned integers but bytes.
    least, greatest = (int(value) for value in torch.aminmax(tensor.to(torch.int64)))
    if spec.minimum is not None and least < spec.minimum:
        return f"holds {least}, and its minimum is {spec.minimum}"
    if spec.maximum is not None and greatest > spec.maximum:
        return f"holds {greatest}, and its maximum is {spec.maximum}"
    return None


def to_json(name: str, tensor: torch.Tensor) -> list[Any]:
    """All values, flat. Raises BadRequest where JSON has no word for one."""
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        message = f"The output {name!r} holds NaN or infinity, which JSON cannot say: ask for it as binary data."
        raise BadRequest(message, param=name)
    values: list[Any] = tensor.flatten().tolist()
    return values


def to_bytes(tensor: torch.Tensor) -> bytes:
    """Its values one after another, little-endian."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def datatype_of(name: str, given: str) -> Datatype:
    """Raises BadRequest."""
    for known in DATATYPES:
        if known == given:
            return known
    if given == "BYTES":
        raise BadRequest(f"The input {name!r} is BYTES, which programs of tensors cannot take.", param=name)
    raise BadRequest(f"{given!r} is no datatype; there are {', '.join(DATATYPES)}.", param=name)


def _values(name: str, datatype: Datatype, rank: int, data: msgspec.Raw) -> Any:
    """Flat first: nested data is found out by its first value."""
    try:
        return _decoder(datatype, 1).decode(data)
    except msgspec.ValidationError as error:
        if rank == 1:
            raise _not_values(name, datatype, error) from error
    try:
        return _decoder(datatype, rank).decode(data)
    except msgspec.ValidationError as error:
        raise _not_values(name, datatype, error) from error


@cache
def _decoder(datatype: Datatype, depth: int) -> msgspec.json.Decoder[Any]:
    kind = _element(datatype)
    for _ in range(depth):
        kind = GenericAlias(list, kind)
    return msgspec.json.Decoder(kind)


def _element(datatype: Datatype) -> Any:
    if datatype == "BOOL":
        return bool
    dtype = DTYPES[datatype]
    if dtype.is_floating_point:
        return float
    limits = torch.iinfo(dtype)
    # msgspec takes no bound beyond INT64's; torch refuses what is beyond it.
    return Annotated[int, msgspec.Meta(ge=limits.min, le=min(limits.max, 2**63 - 1))] if datatype != "UINT64" else int


def _not_values(name: str, datatype: Datatype, error: msgspec.ValidationError) -> BadRequest:
    message = f"The input {name!r} must be an array of {datatype}, flat or nested as its shape: {error}."
    return BadRequest(message, param=name)


def _out_of_range(name: str, datatype: Datatype) -> BadRequest:
    return BadRequest(f"The input {name!r} holds a value that {datatype} cannot hold.", param=name)
