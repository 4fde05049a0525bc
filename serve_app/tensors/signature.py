"""What a program of tensors takes and gives: `tensors.json`, beside `model.pt2` in a release."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from serve_app.tensors.errors import BadRelease

FILE = "tensors.json"
MAX_FILE_BYTES = 2**20
ANY = -1
"""A dimension of any size."""

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64"
]
DATATYPES: tuple[Datatype, ...] = get_args(Datatype)
"""Of the Open Inference Protocol, with Triton's BF16. BYTES is not among them: programs take no text."""

UNBOUNDED = ("BOOL", "UINT64", "FP16", "BF16", "FP32", "FP64")


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorSpec(Frozen):
    """One input or output. The first dimension is that of rows, which are computed together and know nothing of each
    other."""

    name: str = Field(min_length=1, max_length=256)
    datatype: Datatype
    shape: tuple[Annotated[int, Field(ge=ANY, le=2**31)], ...] = Field(min_length=1, max_length=16)
    minimum: int | None = None
    """Of the values that an input may hold."""
    maximum: int | None = None

    @field_validator("shape")
    @classmethod
    def _of_rows(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape[0] != ANY:
            raise ValueError("the first dimension is that of rows, and must be -1")
        if 0 in shape:
            raise ValueError("a dimension is 0")
        return shape

    @model_validator(mode="after")
    def _of_bounds(self) -> Self:
        if self.bounded and self.datatype in UNBOUNDED:
            raise ValueError(f"{self.datatype} takes no minimum or maximum")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"the minimum {self.minimum} is more than the maximum {self.maximum}")
        return self

    @property
    def bounded(self) -> bool:
        return self.minimum is not None or self.maximum is not None

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape, in which no dimension is 0, is one."""
        return len(shape) == len(self.shape) and all(
            ours in (ANY, theirs) for ours, theirs in zip(self.shape, shape, strict=True)
        )


class Signature(Frozen):
    """Inputs in the order of the arguments of `forward`, outputs in the order in which it returns them."""

    inputs: tuple[TensorSpec, ...] = Field(min_length=1, max_length=64)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1, max_length=64)

    @field_validator("inputs", "outputs")
    @classmethod
    def _distinct(cls, tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        name, times = Counter(tensor.name for tensor in tensors).most_common(1)[0]
        if times > 1:
            raise ValueError(f"{name!r} is named {times} times")
        return tensors

    @field_validator("outputs")
    @classmethod
    def _unbounded(cls, outputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        for spec in outputs:
            if spec.bounded:
                raise ValueError(f"{spec.name!r} has a minimum or maximum, which is for inputs")
        return outputs

    @classmethod
    def read(cls, release: Path) -> "Signature":
        """The one in a release's directory. Raises BadRelease."""
        path = release / FILE
        try:
            with path.open("rb") as file:
                return cls.model_validate_json(file.read(MAX_FILE_BYTES))
        except OSError as error:
            raise BadRelease(f"{FILE} can't be read: {error.strerror}; push the release with one") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BadRelease(f"{FILE}: {where}: {first['msg']}") from error
