"""Traces of real workloads: Azure's CSV, Mooncake's JSONL, and rayfleet's own request log."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any

from autoscaling.simulate.errors import BadTrace

AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MOONCAKE_BLOCK_TOKENS = 512


class Format(StrEnum):
    AZURE = "azure"
    MOONCAKE = "mooncake"
    LOG = "log"
    """rayfleet's request log."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a trace says of one request."""

    at: float
    """Seconds since the trace began."""
    prompt_tokens: int
    output_tokens: int
    model: str = ""
    """Empty: any; whoever replays the trace names one."""
    tenant: str = ""
    only_site: str | None = None
    """The one site that may serve it; no trace has this, `workload.pinned` draws it."""
    blocks: tuple[int, ...] = ()
    """Its prompt's whole blocks: equal numbers mean equal beginnings up to and with that block."""
    block_tokens: int = 0
    """Of each block."""


@dataclass(frozen=True, slots=True)
class _Line:
    """Where a value stands, for messages."""

    path: Path
    number: int

    def bad(self, field: str, why: str) -> BadTrace:
        return BadTrace(f"{self.path}, line {self.number}, field {field}: {why}")

    def tokens(self, field: str, value: Any, least: int) -> int:
        """Raises BadTrace."""
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise self.bad(field, f"{value!r} is no whole number") from None
        if isinstance(value, bool | float) or number < least:
            raise self.bad(field, f"{value!r} should be a whole number of at least {least}")
        return number

    def seconds(self, field: str, value: Any) -> float:
        """Raises BadTrace."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.bad(field, f"{value!r} is no number")
        return float(value)


def read_trace(path: Path, form: Format | None = None) -> tuple[Request, ...]:
    """Its requests in order of time, the first at 0. Without a format, the first line tells it. Raises BadTrace."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            first = file.readline()
            readers = {Format.AZURE: _azure, Format.MOONCAKE: _mooncake, Format.LOG: _log}
            reader = readers[form or _recognised(path, first)]
            requests = sorted(reader(path, chain([first], file)), key=lambda request: request[0])
    except OSError as error:
        raise BadTrace(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadTrace(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    if not requests:
        raise BadTrace(f"{path} has no request")
    began = requests[0][0]
    return tuple(made(at - began) for at, made in requests)


_Timed = tuple[float, Callable[[float], Request]]
"""Seconds by the trace's own clock, and the request for a time that begins at 0."""


def _recognised(path: Path, first: str) -> Format:
    if first.startswith(AZURE_COLUMNS[0]):
        return Format.AZURE
    if '"hash_ids"' in first:
        return Format.MOONCAKE
    if '"request_id"' in first:
        return Format.LOG
    raise BadTrace(
        f"{path}, line 1: neither Azure's columns ({','.join(AZURE_COLUMNS)}) nor a JSON line of Mooncake's (hash_ids) "
        "or of a request log (request_id)"
    )


def _azure(path: Path, lines: Iterator[str]) -> Iterator[_Timed]:
    reader = csv.DictReader(lines)
    if missing := [column for column in AZURE_COLUMNS if column not in (reader.fieldnames or ())]:
        raise _Line(path, 1).bad(missing[0], f"missing among the columns {', '.join(reader.fieldnames or ())}")
    for row in reader:
        line = _Line(path, reader.line_num)
        prompt = line.tokens("ContextTokens", row["ContextTokens"], 1)
        output = line.tokens("GeneratedTokens", row["GeneratedTokens"], 1)
        yield _azure_time(line, row["TIMESTAMP"]), _plain(prompt, output)


def _azure_time(line: _Line, text: str) -> float:
    """It has seven digits behind the second, one more than datetime reads."""
    whole, _, fraction = text.partition(".")
    try:
        at = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
        return at + (float(f"0.{fraction}") if fraction else 0.0)
    except ValueError:
        raise line.bad("TIMESTAMP", f"{text!r} is no time like 2023-11-16 18:15:46.6805900") from None


def _mooncake(path: Path, lines: Iterator[str]) -> Iterator[_Timed]:
    for line, fields in _json_lines(path, lines):
        at = line.seconds("timestamp", fields.get("timestamp")) / 1000
        prompt = line.tokens("input_length", fields.get("input_length"), 1)
        output = line.tokens("output_length", fields.get("output_length"), 1)
        blocks = fields.get("hash_ids")
        if not isinstance(blocks, list) or not all(type(block) is int for block in blocks):
            raise line.bad("hash_ids", f"{blocks!r} is no list of whole numbers")
        whole = tuple(blocks[: prompt // MOONCAKE_BLOCK_TOKENS])  # engines cache no part of a block
        yield at, _plain(prompt, output, blocks=whole, block_tokens=MOONCAKE_BLOCK_TOKENS)


def _log(path: Path, lines: Iterator[str]) -> Iterator[_Timed]:
    """Requests without an answer, whose sizes nobody counted, are left out."""
    for line, fields in _json_lines(path, lines):
        at = line.seconds("started", fields.get("started"))
        prompt = line.tokens("tokens_in", fields.get("tokens_in"), 0)
        output = line.tokens("tokens_out", fields.get("tokens_out"), 0)
        names = [fields.get(name, "") for name in ("model", "tenant")]
        for name, value in zip(("model", "tenant"), names, strict=True):
            if not isinstance(value, str):
                raise line.bad(name, f"{value!r} is no text")
        if prompt and output:
            yield at, _plain(prompt, output, model=names[0], tenant=names[1])


def _plain(prompt: int, output: int, **others: Any) -> Callable[[float], Request]:
    return lambda at: Request(at, prompt, output, **others)


def _json_lines(path: Path, lines: Iterator[str]) -> Iterator[tuple[_Line, dict[str, Any]]]:
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        line = _Line(path, number)
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise BadTrace(f"{path}, line {number}: no JSON: {error}") from error
        if not isinstance(fields, dict):
            raise BadTrace(f"{path}, line {number}: no JSON object")
        yield line, fields
