"""The ingress's API as an OpenAPI document: FastAPI's own account of its routes, and the inference routes."""

from typing import Any

from fastapi import FastAPI

from serve_app.openai import ROUTES, Route

ERROR = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "integer", "null"]},
            },
        }
    },
}
REFUSED = {"description": "an error in OpenAI's shape", "content": {"application/json": {"schema": ERROR}}}
TENSOR_ERROR = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {"error": {"type": "string"}},
}
TENSORS_REFUSED = {
    "description": "an error in the Open Inference Protocol's shape",
    "content": {"application/json": {"schema": TENSOR_ERROR}},
}
NUMBER = {"type": ["number", "null"]}
FIELDS: dict[str, Any] = {
    "model": {"anyOf": [{"enum": ["chat", "embed"]}, {"type": "string"}]},
    "stream": {"type": "boolean"},
    "max_tokens": {"type": "integer", "minimum": 1, "maximum": 8},
    "temperature": NUMBER,
    "seed": {"type": "integer"},
    "stop": {"type": ["string", "array", "null"], "items": {"type": "string"}},
    "n": {"type": "integer", "minimum": 1, "maximum": 3},
}
MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {"role": {"enum": ["system", "user", "assistant"]}, "content": {"type": "string"}},
}
BEGINNINGS: dict[bytes, dict[str, Any]] = {
    b"[": {"type": "array", "items": MESSAGE},
    b'"[': {"type": ["string", "array"], "items": {"type": "string"}},
}


def document(app: FastAPI) -> dict[str, Any]:
    """Every operation but `drain`, which is for the sites to answer, and the forms."""
    told = app.openapi()
    paths = {path: operations for path, operations in told["paths"].items() if not path.endswith("/drain")}
    paths |= {path: {"post": _inference(route)} for path, route in ROUTES.items() if not route.form}
    paths["/fleet/route"]["post"]["requestBody"] = paths["/v1/chat/completions"]["post"]["requestBody"]
    for path, operations in paths.items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"] |= {
                "4XX": REFUSED if path in ROUTES or not path.startswith("/v2") else TENSORS_REFUSED
            }
    return {**told, "paths": paths}


def _inference(route: Route) -> dict[str, Any]:
    prompts = {name: BEGINNINGS[begins] for name, begins in route.prompt.items()}
    body = {"type": "object", "required": ["model", *prompts][:2], "properties": {**FIELDS, **prompts}}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "the engine's answer"}},
    }
