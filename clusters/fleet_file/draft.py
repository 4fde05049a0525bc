"""A fleet file that may be wrong in places, as typed parts: what is missing or mistaken reads as None, so that the
rules can still judge everything else."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from clusters.fields import Spec
from clusters.fleet_file.document import Mistake, Where


@dataclass(frozen=True)
class Part:
    """One mapping of the file, with defaults filled in."""

    at: Where
    values: Mapping[str, Any]
    given: AbstractSet[str] = frozenset()

    def __getitem__(self, field: str) -> Any:
        return self.values.get(field)

    def where(self, field: str) -> Where:
        return (*self.at, field)

    def lacks(self, field: str) -> bool:
        """Whether an optional field is unset, not mistaken."""
        return field in self.values and self.values[field] is None

    def gives(self, field: str) -> bool:
        """Whether the file says something of it, right or wrong: else its value is the default."""
        return field in self.given

    def mistake(self, field: str, message: str, fix: str) -> Mistake:
        return Mistake(self.where(field), message, fix)


def draft(kind: type[Spec], raw: Any, wrong: AbstractSet[Where]) -> Part:
    """`raw` read as a `kind`; `wrong` are the places that validation refused."""
    around = {at[:length] for at in wrong for length in range(len(at))}
    return _part(kind, raw, (), wrong, around)


def _part(kind: type[Spec], raw: Any, at: Where, wrong: AbstractSet[Where], around: AbstractSet[Where]) -> Part:
    readable = isinstance(raw, dict) and at not in wrong
    given = raw if readable else {}
    values: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        here = (*at, name)
        inner, holder = nested(field.annotation)
        if inner and holder is tuple:
            items = given[name] if isinstance(given.get(name), list) else []
            values[name] = tuple(_part(inner, item, (*here, index), wrong, around) for index, item in enumerate(items))
        elif inner and holder is dict:
            if readable and here not in wrong:
                parts = given.get(name, {}).items()
                values[name] = {key: _part(inner, item, (*here, key), wrong, around) for key, item in parts}
        elif inner:
            values[name] = _part(inner, given.get(name, {} if readable else None), here, wrong, around)
        elif name in given and here not in wrong and here not in around:
            values[name] = given[name]
        elif readable and name not in given and not field.is_required():
            values[name] = field.get_default(call_default_factory=True)
    return Part(at, values, given.keys())


def nested(annotation: Any) -> tuple[type[Spec] | None, type | None]:
    """The spec inside a field's type, and tuple or dict where the field holds many values."""
    holder = get_origin(annotation)
    inner = (part for part in (annotation, *get_args(annotation)) if isinstance(part, type) and issubclass(part, Spec))
    return next(inner, None), holder
