"""The ingress, as commands ask it: where it is, with which key, and what its refusals say."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any, Self

import typer

from clusters.launch import local as launch

MAX_BYTES = 8 * 2**20
TIMEOUT_S = 15.0

EndpointOption = Annotated[
    str | None,
    typer.Option("--endpoint", help="Base URL of the ingress, its key in RAYFLEET_API_KEY; unset: the local fleet's."),
]
DirOption = Annotated[Path, typer.Option("--dir", help="Of the local fleet.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
DEFAULT_DIR = Path("clusters/local")


class FleetUnreachable(Exception):
    """The ingress did not answer, or not as one does."""


class FleetRefused(Exception):
    """The ingress said no. The message is its own."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Every method raises FleetUnreachable and FleetRefused."""

    url: str
    key: str = field(repr=False)

    @classmethod
    def find(cls, url: str | None, directory: Path) -> Self:
        """That of `url`, else the local fleet's. Raises NoLocalFleet."""
        if url is not None:
            return cls(url.rstrip("/"), os.environ.get("RAYFLEET_API_KEY", ""))
        local = launch.load(directory)
        return cls(local.endpoint, local.api_key)

    def get(self, path: str) -> Any:
        return self._ask(path, None, {})

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Any:
        """`body` is JSON, and so is the answer."""
        return self._ask(path, body, {"Content-Type": "application/json", **headers})

    def _ask(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        headers = {"Authorization": f"Bearer {self.key}", **headers}
        try:
            request = urllib.request.Request(self.url + path, body, headers)  # noqa: S310
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                return json.loads(answer.read(MAX_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                raise FleetRefused(f"{self.url}, status {error.code}: {_message(error)}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise FleetUnreachable(f"{self.url} does not answer as an ingress: {error}") from error


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(MAX_BYTES))["error"]["message"])
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return error.reason
