"""The document held to the pydantic models of `clusters.spec`: what a person reads in place of pydantic's errors."""

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from clusters.fields import EnvName, HttpUrl, Name, PolicyName, Spec, StoreUrl
from clusters.fleet_file.document import Document, Mistake, Where
from clusters.fleet_file.draft import nested
from clusters.spec import FleetSpec

KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
TEXTS = {
    PolicyName: "use at most 63 lower-case letters, digits, `.`, `_` and `-`, with a letter or digit at both ends",
    Name: "use at most 63 lower-case letters, digits, `.` and `-`, with a letter or digit at both ends",
    HttpUrl: "write http://host:port or https://host",
    StoreUrl: "write s3://bucket/prefix, gs://bucket/prefix or file:///directory",
    EnvName: "use upper-case letters, digits and `_`",
}
KEY = "[key]"  # pydantic's last step to a mapping's key, in place of its value
PATTERNS = {get_args(text)[1].pattern: fix for text, fix in TEXTS.items()}
BOUNDS = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}


def shaped(document: Document) -> tuple[FleetSpec | None, list[Mistake]]:
    """The fleet, or every way in which the document isn't one."""
    try:
        # Strict JSON, so that neither "2" nor true passes for a number.
        return FleetSpec.model_validate_json(json.dumps(document.data), strict=True), []
    except ValidationError as error:
        refused = (_mistake(document, each["type"], each["loc"], each.get("ctx", {})) for each in error.errors())
        return None, [mistake for mistake in refused if mistake is not None]


def did_you_mean(word: Any, options: Iterable[str], otherwise: str) -> str:
    """Of options that differ by case alone, the last."""
    spelled = {option.lower(): option for option in options}
    close = get_close_matches(str(word).lower(), spelled, n=1)
    return f"did you mean `{spelled[close[0]]}`?" if close else otherwise


def quoted(value: Any) -> str:
    """A value as it might stand in the file, short enough for a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def _mistake(document: Document, kind: str, at: Where, details: dict[str, Any]) -> Mistake | None:
    value = document.value(at)
    if kind == "string_pattern_mismatch" and at[-1] == KEY:
        at, value = at[:-1], at[-2]
    field = _field(at)
    match kind:
        case "extra_forbidden":
            known = list(_fields(at[:-1]))
            return Mistake(
                at, "unknown field", did_you_mean(at[-1], known, f"remove it; known here: {', '.join(known)}")
            )
        case "missing":
            return Mistake(at, "missing", f"add `{at[-1]}: …`{_means(field)}")
        case "enum" | "literal_error":
            options = details["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            fix = did_you_mean(value, options, f"write {' or '.join(options)}")
            return Mistake(at, f"{quoted(value)} is not allowed", fix)
        case "too_short" if value:
            return None  # pydantic counts only the valid items; each of the others is reported by itself
        case "too_short":
            return Mistake(at, "is empty", "add at least one")
        case "string_pattern_mismatch":
            fix = PATTERNS.get(details["pattern"]) or f"must match {details['pattern']}{_means(field)}"
            return Mistake(at, f"{quoted(value)} is not well formed", fix)
        case "string_type" if isinstance(value, bool | int | float):
            spelling = document.spellings[at]
            return Mistake(at, f"{spelling} is read as a number or a truth value", f'quote it: "{spelling}"')
        case "int_type" | "float_type" if isinstance(value, str):
            fix = f"write a plain number, without quotes or unit{_means(field)}"
            return Mistake(at, f"{quoted(value)} is not {KINDS[kind]}", fix)
        case _ if kind in KINDS and value is None:
            return Mistake(at, "has no value", f"write {KINDS[kind]}{_means(field)}, or remove the field")
        case _ if kind in KINDS:
            return Mistake(at, f"{quoted(value)} is not {KINDS[kind]}", f"write {KINDS[kind]}{_means(field)}")
        case _ if kind in BOUNDS:
            limit = next(iter(details.values()))
            return Mistake(at, f"{quoted(value)} is out of range", f"write {BOUNDS[kind]} {limit:g}{_means(field)}")
    return Mistake(at, f"{quoted(value)} is refused ({kind.replace('_', ' ')})", f"write another value{_means(field)}")


def _means(field: FieldInfo | None) -> str:
    return f" ({field.description})" if field and field.description else ""


def _field(at: Where) -> FieldInfo | None:
    return _fields(at[:-1]).get(at[-1]) if at and isinstance(at[-1], str) else None


def _fields(at: Where) -> Mapping[str, FieldInfo]:
    """What the mapping at a place may hold; none of it is known where its keys are names."""
    spec: type[Spec] = FleetSpec
    keyed = False
    for step in at:
        if keyed:
            keyed = False
        elif isinstance(step, str) and step in spec.model_fields:
            inner, holder = nested(spec.model_fields[step].annotation)
            spec, keyed = inner or spec, holder is dict
    return {} if keyed else spec.model_fields
