"""The Open Inference Protocol's paths, and what a server says of itself: all that the ingress knows of it."""

import re
from importlib.metadata import version
from typing import Any, NamedTuple

PREFIX = "/v2/models/"
PATH = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<rest>/infer|/ready)?")


class ModelPath(NamedTuple):
    model: str
    version: str | None
    infers: bool
    """Whether it takes tensors; else it tells something of the model."""


def model_path(path: str) -> ModelPath | None:
    """None for all other paths."""
    if not path.startswith(PREFIX):
        return None
    found = PATH.fullmatch(path)
    return None if found is None else ModelPath(found["model"], found["version"], found["rest"] == "/infer")


def is_infer(path: str) -> bool:
    found = model_path(path)
    return found is not None and found.infers


def server_metadata() -> dict[str, Any]:
    """The answer of `/v2`."""
    return {"name": "rayfleet", "version": version("rayfleet"), "extensions": ["binary_tensor_data"]}
