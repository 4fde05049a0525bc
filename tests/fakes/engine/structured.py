"""Answers that a grammar dictates: JSON for a schema, and the arguments of a tool that must be called."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.engine.tokens import encode


def tools(fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The functions of which one must be called, the one that will be first; empty where none must."""
    choice = fields.get("tool_choice")
    functions = [tool["function"] for tool in fields.get("tools") or ()]
    if choice == "required":
        return functions
    if isinstance(choice, Mapping):
        return [function for function in functions if function["name"] == choice["function"]["name"]]
    return ()


def script(fields: Mapping[str, Any], functions: Sequence[Mapping[str, Any]]) -> tuple[int, ...] | None:
    """The tokens of the whole answer; None where the model is free."""
    if functions:
        arguments = example(functions[0].get("parameters") or {})
        return encode(json.dumps(arguments, ensure_ascii=False))
    form = fields.get("response_format") or {}
    if form.get("type") == "json_schema":
        return encode(json.dumps(example(form["json_schema"]["schema"]), ensure_ascii=False))
    if form.get("type") == "json_object":
        return encode('{"answer": "warm water"}')
    return None


def example(schema: Mapping[str, Any]) -> Any:
    """A value that the schema allows."""
    if choices := schema.get("enum"):
        return choices[0]
    match schema.get("type", "object"):
        case "object":
            return {name: example(inner) for name, inner in (schema.get("properties") or {}).items()}
        case "array":
            return [example(schema.get("items") or {"type": "string"})]
        case "integer" | "number":
            return 7
        case "boolean":
            return True
        case _:
            return "Zürich 日"
