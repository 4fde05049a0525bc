"""Requests and answers of the Open Inference Protocol v2, with its extension for binary tensor data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import torch

from serve_app.errors import BadRequest
from serve_app.tensors.datatypes import datatype_of, from_bytes, from_json, misfit, to_bytes, to_json
from serve_app.tensors.signature import Signature, TensorSpec

HEADER_LENGTH = "inference-header-content-length"
"""The header that says how many bytes of a body are JSON; the rest is the bytes of tensors, in the JSON's order."""
BINARY = "application/octet-stream"
ABSENT = msgspec.Raw(b"")

Dimension = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Parameters = dict[str, Any]


class _Input(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: Annotated[tuple[Dimension, ...], msgspec.Meta(max_length=16)]
    datatype: str
    parameters: Parameters = msgspec.field(default_factory=dict)
    data: msgspec.Raw = ABSENT


class _Output(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    parameters: Parameters = msgspec.field(default_factory=dict)


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    inputs: Annotated[list[_Input], msgspec.Meta(min_length=1, max_length=64)]
    outputs: Annotated[list[_Output], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)
    id: Annotated[str, msgspec.Meta(max_length=256)] = ""
    parameters: Parameters = msgspec.field(default_factory=dict)


_DECODER = msgspec.json.Decoder(_Request)


@dataclass(frozen=True)
class Asked:
    """A request that fits the signature. `inputs` are in its order; `outputs` says of each whether it is to be
    binary."""

    id: str
    inputs: tuple[torch.Tensor, ...]
    outputs: Mapping[str, bool]


@dataclass(frozen=True)
class Answer:
    """`header_length` is None where all of the body is JSON."""

    body: bytes
    header_length: int | None


def read_request(signature: Signature, body: bytes, header_length: str | None) -> Asked:
    """Raises BadRequest, which names what does not fit."""
    size = _header_size(header_length, len(body))
    try:
        request = _DECODER.decode(memoryview(body)[:size])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"The request is not as the Open Inference Protocol has it: {error}.") from error
    named = _named(request.inputs)
    rest = _Rest(memoryview(body)[size:])
    tensors = {given.name: _held(given, _wanted(signature, given), rest) for given in request.inputs}
    rest.check_empty()
    missing = [spec.name for spec in signature.inputs if spec.name not in named]
    if missing:
        raise BadRequest(f"The input {missing[0]!r} is missing.", param=missing[0])
    inputs = tuple(tensors[spec.name] for spec in signature.inputs)
    if len({tensor.shape[0] for tensor in inputs}) > 1:
        raise BadRequest("The inputs differ in their first dimension, which is that of rows.")
    return Asked(request.id, inputs, _outputs(signature, request))


def write_answer(
    model: str, version: str, asked: Asked, signature: Signature, outputs: Sequence[torch.Tensor]
) -> Answer:
    """Raises BadRequest where an output cannot be said as JSON."""
    by_name = dict(zip((spec.name for spec in signature.outputs), outputs, strict=True))
    specs = {spec.name: spec for spec in signature.outputs}
    told: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, binary in asked.outputs.items():
        tensor = by_name[name]
        one: dict[str, Any] = {"name": name, "datatype": specs[name].datatype, "shape": list(tensor.shape)}
        if binary:
            tail.append(to_bytes(tensor))
            one["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            one["data"] = to_json(name, tensor)
        told.append(one)
    named = {"id": asked.id} if asked.id else {}
    head = msgspec.json.encode({"model_name": model, "model_version": version, **named, "outputs": told})
    return Answer(head + b"".join(tail), len(head) if tail else None)


class _Rest:
    """The bytes behind the JSON, taken tensor by tensor."""

    def __init__(self, data: memoryview):
        self._data = data

    def take(self, name: str, size: Any) -> memoryview:
        if type(size) is not int or not 0 <= size <= len(self._data):
            message = f"The input {name!r} says that it has {size!r} bytes, and {len(self._data)} are left."
            raise BadRequest(message, param=name)
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def check_empty(self) -> None:
        if self._data:
            raise BadRequest(f"{len(self._data)} bytes behind the JSON belong to no input.")


def _header_size(given: str | None, size: int) -> int:
    if given is None:
        return size
    if not (given.isascii() and given.isdigit()) or len(given) > 12 or int(given) > size:
        raise BadRequest(f"The header {HEADER_LENGTH} must be a number of at most {size} bytes.", param=HEADER_LENGTH)
    return int(given)


def _named(inputs: Sequence[_Input]) -> frozenset[str]:
    names = [given.name for given in inputs]
    for name in names:
        if names.count(name) > 1:
            raise BadRequest(f"The input {name!r} is given {names.count(name)} times.", param=name)
    return frozenset(names)


def _wanted(signature: Signature, given: _Input) -> TensorSpec:
    for spec in signature.inputs:
        if spec.name == given.name:
            return spec
    known = ", ".join(spec.name for spec in signature.inputs)
    raise BadRequest(f"There is no input {given.name!r}; there are {known}.", param=given.name)


def _held(given: _Input, spec: TensorSpec, rest: _Rest) -> torch.Tensor:
    """To the spec's bounds: an index out of range would break a CUDA device for all."""
    tensor = _tensor(given, spec, rest)
    wrong = misfit(spec, tensor)
    if wrong is not None:
        raise BadRequest(f"The input {given.name!r} {wrong}.", param=given.name)
    return tensor


def _tensor(given: _Input, spec: TensorSpec, rest: _Rest) -> torch.Tensor:
    name = given.name
    datatype = datatype_of(name, given.datatype)
    if datatype != spec.datatype:
        raise BadRequest(f"The input {name!r} is {spec.datatype}, not {datatype}.", param=name)
    if not spec.takes(given.shape):
        raise BadRequest(f"The input {name!r} has the shape {list(spec.shape)}, not {list(given.shape)}.", param=name)
    if "binary_data_size" in given.parameters:
        if given.data is not ABSENT:
            raise BadRequest(f"The input {name!r} is given both as JSON and as binary data.", param=name)
        return from_bytes(name, datatype, given.shape, rest.take(name, given.parameters["binary_data_size"]))
    if given.data is ABSENT:
        raise BadRequest(f"The input {name!r} has no data.", param=name)
    return from_json(name, datatype, given.shape, given.data)


def _outputs(signature: Signature, request: _Request) -> dict[str, bool]:
    known = [spec.name for spec in signature.outputs]
    usual = _flag(request.parameters, "binary_data_output")
    if not request.outputs:
        return dict.fromkeys(known, usual)
    asked: dict[str, bool] = {}
    for output in request.outputs:
        if output.name not in known:
            message = f"There is no output {output.name!r}; there are {', '.join(known)}."
            raise BadRequest(message, param=output.name)
        if output.name in asked:
            raise BadRequest(f"The output {output.name!r} is asked for twice.", param=output.name)
        asked[output.name] = _flag(output.parameters, "binary_data", usual)
    return asked


def _flag(parameters: Parameters, name: str, usual: bool = False) -> bool:
    given = parameters.get(name, usual)
    if not isinstance(given, bool):
        raise BadRequest(f"The parameter {name!r} must be true or false.", param=name)
    return given
