"""A `torch.export` program on its device, held to its signature before it serves anyone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from serve_app.tensors import archive
from serve_app.tensors.datatypes import DTYPES, misfit
from serve_app.tensors.errors import BadRelease, Broken, NoMemory, Unable
from serve_app.tensors.signature import ANY, FILE, Signature, TensorSpec

FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, ArithmeticError)
"""What a program raises. RuntimeError includes all that torch's kernels and devices say."""
MAX_REASON = 200

Tensors = tuple[torch.Tensor, ...]


class Program:
    """For one thread at a time."""

    def __init__(self, signature: Signature, exported: ExportedProgram, device: str):
        """Raises BadRelease where the two don't go together."""
        self.signature = signature
        self.device = torch.device(device)
        self._example = _example(exported)
        _compare(signature, exported, self._example)
        self._module = move_to_device_pass(exported, self.device).module()

    @classmethod
    def load(cls, release: Path, device: str) -> "Program":
        """From a release's directory. Raises BadRelease."""
        signature = Signature.read(release)
        path = release / archive.FILE
        archive.check_archive(path)
        try:
            exported = torch.export.load(path)
        except (*FAILURES, KeyError, AttributeError) as error:
            raise BadRelease(
                f"{archive.FILE} can't be loaded by torch {torch.__version__}: {_reason(error)}"
            ) from error
        return cls(signature, exported, device)

    def run(self, inputs: Sequence[torch.Tensor]) -> Tensors:
        """On the device; what comes back is in the CPU's memory. Raises Unable, Broken or NoMemory."""
        try:
            return self._run(inputs)
        except torch.OutOfMemoryError as error:
            raise NoMemory(f"no memory left on {self.device} for {len(inputs[0])} rows") from error
        except FAILURES as error:
            reason = _reason(error)
        self.check()
        raise Unable(f"the program fails on this input: {reason}")

    def check(self) -> None:
        """Its own example still works. Raises Broken."""
        try:
            self._run(self._rows(1))
        except FAILURES as error:
            raise Broken(f"the program fails on its own example: {_reason(error)}") from error

    def warm_up(self, rows: Sequence[int]) -> None:
        """Runs its example in batches of so many rows. Raises BadRelease where a batch cannot be, or gives something
        else than the signature says."""
        for count in rows:
            try:
                outputs = self._run(self._rows(count))
            except FAILURES as error:
                mend = "export it with a dynamic first dimension, or lower max_num_seqs"
                raise BadRelease(f"{archive.FILE} fails on a batch of {count}: {_reason(error)}; {mend}") from error
            for spec, output in zip(self.signature.outputs, outputs, strict=True):
                _check_output(spec, output, count)

    def _run(self, inputs: Sequence[torch.Tensor]) -> Tensors:
        with torch.inference_mode():
            given = self._module(*(tensor.to(self.device) for tensor in inputs))
            outputs = tuple(tensor.cpu() for tensor in _listed(given, self.signature))
        if any(len(output) != len(inputs[0]) for output in outputs):
            raise ValueError("an output has another number of rows than the inputs")
        return outputs

    def _rows(self, count: int) -> Tensors:
        return tuple(tensor[:1].repeat(count, *[1] * (tensor.dim() - 1)) for tensor in self._example)


def _example(exported: ExportedProgram) -> Tensors:
    given = exported.example_inputs
    args, kwargs = given if given else ((), {})
    if not args or kwargs or not all(isinstance(arg, torch.Tensor) and arg.dim() and len(arg) for arg in args):
        mend = "export it with example inputs that are tensors, as positional arguments, of at least one row"
        raise BadRelease(f"{archive.FILE} takes more than tensors: {mend}")
    return tuple(arg.detach().cpu() for arg in args)


def _compare(signature: Signature, exported: ExportedProgram, example: Tensors) -> None:
    if len(example) != len(signature.inputs):
        raise BadRelease(f"{FILE} names {len(signature.inputs)} inputs, and {archive.FILE} takes {len(example)}")
    users = set(exported.graph_signature.user_inputs)
    shapes = [
        node.meta["val"].shape for node in exported.graph.nodes if node.op == "placeholder" and node.name in users
    ]
    for spec, tensor, shape in zip(signature.inputs, example, shapes, strict=True):
        dtype = DTYPES[spec.datatype]
        if tensor.dtype is not dtype:
            raise BadRelease(
                f"{FILE}: the input {spec.name!r} is {spec.datatype}, and {archive.FILE} takes {tensor.dtype}"
            )
        fixed = [size if isinstance(size, int) else ANY for size in shape]
        if len(fixed) != len(spec.shape) or any(
            ours not in (ANY, theirs) for ours, theirs in zip(fixed, spec.shape, strict=True)
        ):
            message = f"the input {spec.name!r} has the shape {list(spec.shape)}, and {archive.FILE} takes {fixed}"
            raise BadRelease(f"{FILE}: {message}")
        wrong = misfit(spec, tensor)
        if wrong is not None:
            raise BadRelease(f"{FILE}: the example of the input {spec.name!r} {wrong}")


def _listed(given: Any, signature: Signature) -> Tensors:
    """What `forward` returned: a tensor, several in order, or several by name."""
    if isinstance(given, dict):
        given = [given.get(spec.name) for spec in signature.outputs]
    outputs = tuple(given) if isinstance(given, list | tuple) else (given,)
    if len(outputs) != len(signature.outputs) or not all(isinstance(output, torch.Tensor) for output in outputs):
        raise TypeError(f"it gives something else than the {len(signature.outputs)} tensors of {FILE}")
    return outputs


def _check_output(spec: TensorSpec, output: torch.Tensor, rows: int) -> None:
    if output.dtype is not DTYPES[spec.datatype]:
        raise BadRelease(
            f"{FILE}: the output {spec.name!r} is {spec.datatype}, and {archive.FILE} gives {output.dtype}"
        )
    if not spec.takes(tuple(output.shape)) or len(output) != rows:
        found = list(output.shape)
        message = f"the output {spec.name!r} has the shape {list(spec.shape)}, and {archive.FILE} gives {found}"
        raise BadRelease(f"{FILE}: {message} for {rows} rows")


def _reason(error: BaseException) -> str:
    first = str(error).partition("\n")[0][:MAX_REASON]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
