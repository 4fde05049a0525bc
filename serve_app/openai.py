"""The few fields of OpenAI's wire format that we read. All others pass untouched."""

import json
from collections.abc import Mapping
from typing import Any

from clusters.spec import FleetSpec, ModelSpec, Task
from serve_app.errors import BadRequest, ModelNotFound
from serve_app.routing.facts import Facts

ROUTES: Mapping[str, Task] = {
    "/v1/chat/completions": Task.CHAT,
    "/v1/completions": Task.COMPLETIONS,
    "/v1/embeddings": Task.EMBEDDINGS,
}

PROMPTS: Mapping[Task, tuple[str, tuple[type, ...]]] = {
    Task.CHAT: ("messages", (list,)),
    Task.COMPLETIONS: ("prompt", (str, list)),
    Task.EMBEDDINGS: ("input", (str, list)),
}
"""The field that holds the prompt, and its types."""

TYPE_NAMES: Mapping[type, str] = {str: "a string", list: "an array"}


def read_facts(task: Task, body: bytes, only_site: str | None) -> Facts:
    """Raises BadRequest, naming the field."""
    fields = _json_object(body)
    _check_prompt(task, fields)
    return Facts(
        model=_model(fields),
        task=task,
        stream=_stream(fields),
        body_bytes=len(body),
        only_site=only_site,
    )


def find_model(spec: FleetSpec, name: str) -> ModelSpec:
    """Raises ModelNotFound."""
    for model in spec.models:
        if model.name == name:
            return model
    raise ModelNotFound(name, (model.name for model in spec.models))


def model_list(spec: FleetSpec) -> dict[str, Any]:
    """The answer of `/v1/models`."""
    return {"object": "list", "data": [model_card(spec, model) for model in spec.models]}


def model_card(spec: FleetSpec, model: ModelSpec) -> dict[str, Any]:
    """The answer of `/v1/models/{id}`. Releases carry no date, and OpenAI's clients demand one."""
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": spec.name,
        "max_model_len": model.max_model_len,
    }


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except RecursionError as error:
        raise BadRequest("The request body is nested too deeply.") from error
    except ValueError as error:
        raise BadRequest("The request body is not valid JSON.") from error
    if not isinstance(fields, dict):
        raise BadRequest("The request body must be a JSON object.")
    return fields


def _model(fields: dict[str, Any]) -> str:
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("'model' is required, and must be a string.", param="model")
    return model


def _stream(fields: dict[str, Any]) -> bool:
    stream = fields.get("stream")
    if not isinstance(stream, bool | None):
        raise BadRequest("'stream' must be true or false.", param="stream")
    return bool(stream)


def _check_prompt(task: Task, fields: dict[str, Any]) -> None:
    name, types = PROMPTS[task]
    if not isinstance(fields.get(name), types):
        kinds = " or ".join(TYPE_NAMES[kind] for kind in types)
        raise BadRequest(f"'{name}' is required, and must be {kinds}.", param=name)
