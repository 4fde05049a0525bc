"""Whether a fleet.yaml is right. Every mistake is reported at once: line, field, what is wrong, how to mend it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clusters.fleet_file import rules
from clusters.fleet_file.document import Document, Mistake, Where, read
from clusters.fleet_file.draft import draft
from clusters.fleet_file.shape import shaped
from clusters.spec import FleetSpec

MAX_BYTES = 2**20


@dataclass(frozen=True)
class Problem:
    """One mistake in a file, for people and for editors."""

    path: Path
    line: int
    field: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.field + ': ' if self.field else ''}{self.message}\n    fix: {self.fix}"


class InvalidFleet(Exception):
    """A fleet file with problems; as text, the report of all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return "\n".join([f"{self.problems[0].path} has {count}:", *map(str, self.problems)])


def load(path: Path) -> FleetSpec:
    """The fleet that a file declares. Raises InvalidFleet with every problem in it."""
    fleet, found = _examine(_text(path), path)
    if fleet is None or found:
        raise InvalidFleet(found)
    return fleet


def problems(text: str, path: Path = Path("fleet.yaml")) -> list[Problem]:
    """Everything that is wrong with a fleet file's text, in line order. Never raises."""
    return _examine(text, path)[1]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise _refused(path, f"cannot be read: {reason}", "name another file with --fleet or RAYFLEET_FILE") from None
    if len(raw) > MAX_BYTES:
        raise _refused(path, "is larger than 1 MiB", "a fleet file is a few kilobytes: is this the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _refused(path, f"byte #x{raw[error.start]:02x} is not UTF-8", "save the file as UTF-8", line) from None


def _refused(path: Path, message: str, fix: str, line: int = 1) -> InvalidFleet:
    return InvalidFleet([Problem(path, line, "", message, fix)])


def _examine(text: str, path: Path) -> tuple[FleetSpec | None, list[Problem]]:
    document = read(text)
    if document.data is None:
        return None, _problems(document, document.mistakes, path)
    fleet, refused = shaped(document)
    unread = {mistake.at for mistake in document.mistakes}
    mistakes = [*document.mistakes, *(mistake for mistake in refused if mistake.at not in unread)]
    wrong = {mistake.at for mistake in mistakes}
    mistakes += rules.broken(draft(FleetSpec, document.data, wrong))
    return fleet, _problems(document, mistakes, path)


def _problems(document: Document, mistakes: Sequence[Mistake], path: Path) -> list[Problem]:
    found = {
        Problem(path, m.line or document.line(m.at), _label(document, m.at), _plain(m.message), _plain(m.fix))
        for m in mistakes
    }
    return sorted(found, key=lambda problem: (problem.line, problem.field, problem.message))


def _label(document: Document, at: Where) -> str:
    """`placements[2] (demo-chat @ gcp-europe-west4).pool`: items of a list carry the name that people know them by."""
    label = ""
    for depth, step in enumerate(at, start=1):
        if isinstance(step, int):
            name = _name(document.value(at[:depth]))
            label += f"[{step}]" + (f" ({name})" if name else "")
        else:
            label += f".{step}" if label else step
    return _plain(label)


def _name(item: object) -> str:
    if not isinstance(item, dict):
        return ""
    if "model" in item and "site" in item:
        return f"{item['model']} @ {item['site']}"
    return str(item.get("name") or "")


def _plain(text: str) -> str:
    """Text that is safe on a terminal, whatever the file holds."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
