"""Names that move: `prod` of a model is one release today and another one tomorrow, and what it was is kept."""

import re
from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from clusters.fields import ReleaseId
from weights.errors import Conflict, Corrupt, NotFound, ReleaseMissing
from weights.releases.registry import MODELS, RELEASE_ID, has_release, push_command, read_object
from weights.store import Store

KEPT = 50
"""Earlier positions that an alias remembers."""
MAX_BYTES = 2**16
ATTEMPTS = 5
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Position(BaseModel):
    """Where an alias points or pointed, since when, and who moved it there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: ReleaseId
    at: AwareDatetime
    by: str = Field(max_length=256)


class Alias(Position):
    """A name and where it points; its object at the store has just these fields."""

    name: str
    history: tuple[Position, ...] = ()
    """Earlier positions, the latest first."""

    def moved(self, release: str, by: str, now: datetime) -> "Alias":
        before = Position(release=self.release, at=self.at, by=self.by)
        return Alias(name=self.name, release=release, at=now, by=by, history=(before, *self.history)[:KEPT])


def is_alias_name(text: str) -> bool:
    """What may be a release's id can't be an alias: each word means one thing."""
    return bool(_NAME.fullmatch(text)) and not RELEASE_ID.fullmatch(text)


def aliases(store: Store, model: str) -> tuple[Alias, ...]:
    """The aliases of a model, by name. Raises Corrupt: one that can't be read may point to any release."""
    prefix = _prefix(model)
    names = sorted(item.key.removeprefix(prefix).removesuffix(".json") for item in store.objects(prefix))
    found = (_read(store, model, name) for name in names if is_alias_name(name))
    return tuple(pair[0] for pair in found if pair)


def find(store: Store, model: str, alias: str) -> Alias:
    """One alias. Raises NotFound, which names those that there are, and Corrupt."""
    pair = _read(store, model, alias) if is_alias_name(alias) else None
    if pair is None:
        there = ", ".join(each.name for each in aliases(store, model)) or "none"
        raise NotFound(store.url, f"find the alias {alias} of {model}", f"there are: {there}")
    return pair[0]


def resolve(store: Store, model: str, name: str) -> str:
    """The release that a name stands for: its own id, or that of an alias. Raises NotFound, Corrupt."""
    return name if RELEASE_ID.fullmatch(name) else find(store, model, name).release


def move(store: Store, model: str, alias: str, release: str, by: str, now: datetime) -> Alias:
    """Makes an alias point to a release of the store. Where the store is `conditional`, no move of others is lost.

    Raises ReleaseMissing, Conflict when others move it all the time, ValueError for what can't be a name.
    """
    if not is_alias_name(alias):
        raise ValueError(f"{alias!r} can't be the name of an alias")
    if not has_release(store, model, release):
        raise ReleaseMissing(model, release, store.url, push_command(model))
    for _ in range(ATTEMPTS):
        pair = _read(store, model, alias)
        if pair and pair[0].release == release:
            return pair[0]
        moved = pair[0].moved(release, by, now) if pair else Alias(name=alias, release=release, at=now, by=by)
        if store.write_if(_key(model, alias), moved.model_dump_json().encode(), pair[1] if pair else None):
            return moved
    raise Conflict(f"the alias {alias} of {model} at {store.url} is being moved by others; see where it is, try again")


def drop(store: Store, model: str, alias: str) -> None:
    """Removes an alias and its history. Nothing happens when there is none."""
    store.delete(_key(model, alias))


def _read(store: Store, model: str, alias: str) -> tuple[Alias, str] | None:
    """The alias, and the version to replace."""
    key = _key(model, alias)
    found = read_object(store, key, MAX_BYTES)
    if found is None:
        return None
    try:
        return Alias.model_validate_json(found[1]), found[0].version
    except ValidationError as error:
        raise Corrupt(key, store.url, "it is no alias; drop it and set it again") from error


def _prefix(model: str) -> str:
    return f"{MODELS}{model}/aliases/"


def _key(model: str, alias: str) -> str:
    return f"{_prefix(model)}{alias}.json"
