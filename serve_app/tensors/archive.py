"""Looks into a `torch.export` archive before torch does, which would unpickle parts of it.

`torch.export.load` reads weights and constants as plain bytes, unless the archive says that they are pickled; and it
falls back to a full unpickling where sample inputs are more than tensors, or where the archive is of an older layout.
All of that is refused here. What is left is the graph, which torch evaluates: it is a program, and as trustworthy as
who pushed the release.
"""

import io
import json
import pickle
import re
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from serve_app.tensors.errors import BadRelease

FILE = "model.pt2"
MAX_CONFIG_BYTES = 64 * 2**20
MAX_SAMPLE_BYTES = 256 * 2**20
PLAIN = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|models/model\.json|archive_format|archive_version|byteorder"
    r"|\.data/version|\.data/serialization_id"
)
CONFIG = re.compile(r"data/(weights/model_weights|constants/model_constants)_config\.json")
SAMPLES = "data/sample_inputs/model.pt"


def check_archive(path: Path) -> None:
    """Raises BadRelease where loading it would unpickle objects, or run native code that it carries."""
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise BadRelease(f"{FILE} has two records of the same name")
            for name in names:
                _check_record(archive, name)
    except OSError as error:
        raise BadRelease(f"{FILE} can't be read: {error.strerror}; push the release with one") from error
    except BadZipFile as error:
        raise BadRelease(f"{FILE} is no archive of torch.export.save: {error}") from error


def _check_record(archive: ZipFile, name: str) -> None:
    record = name.partition("/")[2]
    if CONFIG.fullmatch(record):
        _check_config(name, _read(archive, name, MAX_CONFIG_BYTES))
    elif record == SAMPLES:
        _check_samples(name, _read(archive, name, MAX_SAMPLE_BYTES))
    elif not PLAIN.fullmatch(record):
        raise BadRelease(f"{FILE} has the record {name!r}, which is no plain tensor: export it anew, without objects")


def _check_config(name: str, content: bytes) -> None:
    try:
        payloads: Any = json.loads(content)["config"].values()
        pickled = any(payload.get("use_pickle") is not False for payload in payloads)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadRelease(f"{FILE}: {name} is not as torch.export.save writes it") from error
    if pickled:
        raise BadRelease(f"{FILE}: {name} names pickled tensors: export it with plain ones")


def _check_samples(name: str, content: bytes) -> None:
    """Torch tries what is done here, and then to unpickle everything."""
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise BadRelease(f"{FILE}: {name} holds more than tensors: export it with tensors as inputs") from error


def _read(archive: ZipFile, name: str, limit: int) -> bytes:
    if archive.getinfo(name).file_size > limit:
        raise BadRelease(f"{FILE}: {name} is larger than {limit} bytes")
    return archive.read(name)
