"""YAML text as plain data, with the line of every value. What cannot be read is a mistake, never an exception."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

Where = tuple[str | int, ...]

MEND = "mend the syntax; nothing else was checked"
MAX_DEPTH = 32
MAX_NUMBER = 1e15  # beyond it floats skip whole numbers
MAX_VALUES = 100_000  # aliases count each time they are used, so that a few lines cannot become gigabytes


@dataclass(frozen=True)
class Mistake:
    """Something wrong at one place of the document."""

    at: Where
    message: str
    fix: str
    line: int | None = None  # where it isn't the line of `at`


@dataclass(frozen=True)
class Document:
    """`data` is made of dict, list, str, int, float, bool and None; every place in it has a line and a spelling."""

    data: Any = None
    lines: Mapping[Where, int] = field(default_factory=dict)
    spellings: Mapping[Where, str] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()

    def line(self, at: Where) -> int:
        """Of the value, or of the nearest thing around it that exists."""
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at, 1)

    def value(self, at: Where) -> Any:
        """What the file has there, or None."""
        value = self.data
        for step in at:
            try:
                value = value[step]
            except (LookupError, TypeError):
                return None
        return value


def read(text: str) -> Document:
    """The document of a YAML text; `mistakes` says what in it could not be read."""
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return _unreadable(1, "the file is empty", "start from the fleet.yaml of the repository")
        if not isinstance(root, yaml.MappingNode):
            return _unreadable(_line(root), "the file is not a mapping of fields", "start with `version: 1`")
        return _Reader(loader).document(root)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return _unreadable(line, f"character #x{int(error.character):04x} is not allowed in YAML", "remove it")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = ", ".join(part for part in (error.context, error.problem) if part)
        return _unreadable(mark.line + 1 if mark else 1, f"not YAML: {message}", MEND)
    except _TooBig as error:
        return _unreadable(error.line, str(error), "write a smaller file; nothing else was checked")
    except RecursionError:
        return _unreadable(1, "values are nested too deeply", f"nest at most {MAX_DEPTH} levels")
    except (ValueError, OverflowError) as error:  # PyYAML lets a few through, for instance of "\UFFFFFFFF"
        line = loader.get_mark().line + 1 if loader else 1
        return _unreadable(line, f"not YAML: {error}", MEND)


class _TooBig(Exception):
    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _Reader:
    """Turns a node graph into data, and notes lines on the way."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self.loader = loader
        self.lines: dict[Where, int] = {}
        self.spellings: dict[Where, str] = {}
        self.mistakes: list[Mistake] = []

    def document(self, root: yaml.Node) -> Document:
        data = self.value(root, (), _line(root))
        return Document(data, self.lines, self.spellings, tuple(self.mistakes))

    def value(self, node: yaml.Node, at: Where, line: int) -> Any:
        self.lines[at] = line
        if len(self.lines) > MAX_VALUES:
            raise _TooBig(f"more than {MAX_VALUES} values, aliases counted", line)
        if len(at) > MAX_DEPTH:
            raise _TooBig(f"values nested more than {MAX_DEPTH} levels deep", line)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return {key: self.value(child, (*at, key), line) for key, child, line in self.fields(node, at)}
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(child, (*at, index), _line(child)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, at)
        self.mistakes.append(Mistake(at, f"tag {node.tag} is not known here", "remove the tag"))
        return None

    def fields(self, node: yaml.MappingNode, at: Where) -> Iterator[tuple[str, yaml.Node, int]]:
        first: dict[str, int] = {}
        for key, child in node.value:
            line = _line(key)
            if not isinstance(key, yaml.ScalarNode) or not _is_text(key.value):
                self.mistakes.append(Mistake((*at, "?"), "a field's name must be a word", "write `name: value`", line))
            elif key.value in first:
                fix = f"keep one of the two; the other is on line {first[key.value]}"
                self.mistakes.append(Mistake((*at, key.value), "this field is given twice", fix, line))
            else:
                first[key.value] = line
                yield key.value, child, line

    def scalar(self, node: yaml.ScalarNode, at: Where) -> Any:
        self.spellings[at] = node.value
        try:
            value = self.loader.construct_object(node)
        except (ValueError, LookupError, AttributeError, OverflowError, yaml.YAMLError):
            value = None
        if (value is None and not node.tag.endswith(":null")) or not _is_text(node.value):
            kind = node.tag.rpartition(":")[2]
            self.mistakes.append(Mistake(at, f"cannot be read as {kind}", "quote it, or write it plainly"))
            return None
        if isinstance(value, int | float) and not abs(value) < MAX_NUMBER:  # nor is NaN
            self.mistakes.append(Mistake(at, f"{node.value} is not a number to work with", "write an ordinary number"))
            return None
        return value if isinstance(value, bool | int | float | str | None) else node.value  # dates and binary stay text


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _unreadable(line: int, message: str, fix: str) -> Document:
    return Document(mistakes=(Mistake((), message, fix, line),))
