"""A repository of the Hugging Face hub as a source: its files are read in ranges, none of it comes onto this disk."""

import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from httpx2 import TooManyRedirects, TransportError
from huggingface_hub import HfApi, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils import build_hf_headers, http_stream_backoff  # type: ignore[attr-defined] # but documented

from weights.errors import SourceError
from weights.sources.source import SourceFile, belongs, usable
from weights.store import PIECE

NAME = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
TIMEOUT_S = 30.0
RETRIES = 5
PAUSE_S = 0.5


class HubSource:
    """Its revision is the commit that it was named by, or that its branch stood for when it was opened."""

    local = False

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        """`environ` may have HF_ENDPOINT and HF_TOKEN; else the hub's own address and its client's saved token."""
        match = NAME.fullmatch(name)
        if match is None:
            raise SourceError(f"{name} is not of the form hf://organisation/repository@revision")
        self.name = name
        self._repo = match["repo"]
        self._endpoint = environ.get("HF_ENDPOINT")
        self._token = environ.get("HF_TOKEN")
        info = self._info(match["revision"])
        if info.sha is None:
            raise self._error("read", "the hub does not say which commit this is")
        self.revision = info.sha
        self.files = usable(name, [self._file(file) for file in info.siblings or () if belongs(file.rfilename)])

    def read(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        end = offset + length
        failures = 0
        while offset < end:
            try:
                for piece in self._pieces(path, offset, end):
                    yield piece
                    offset += len(piece)
                    failures = 0
                return
            except TransportError as error:  # what the hub answers is retried by its client
                failures += 1
                if failures > RETRIES:
                    raise self._error(f"read {path} of", str(error) or type(error).__name__) from None
                time.sleep(random.uniform(0.5, 1.0) * PAUSE_S * 2 ** (failures - 1))

    def _info(self, revision: str | None) -> ModelInfo:
        api = HfApi(endpoint=self._endpoint, token=self._token)
        try:
            with self._translated("read"):
                return api.model_info(self._repo, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
        except TransportError as error:
            raise self._error("read", str(error) or type(error).__name__) from None

    def _file(self, file: RepoSibling) -> SourceFile:
        if file.size is None:
            raise self._error("read", f"the hub does not say how large {file.rfilename} is")
        return SourceFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None)

    def _pieces(self, path: str, offset: int, end: int) -> Iterator[bytes]:
        """Of one answer, which may break off."""
        # Of what is compressed on the way, there are no ranges.
        headers = {"Range": f"bytes={offset}-{end - 1}", "Accept-Encoding": "identity"}
        url = hf_hub_url(self._repo, path, revision=self.revision, endpoint=self._endpoint)
        headers = build_hf_headers(token=self._token, headers=headers)
        with (
            self._translated(f"read {path} of"),
            http_stream_backoff("GET", url, headers=headers, timeout=TIMEOUT_S, retry_on_exceptions=()) as answer,
        ):
            hf_raise_for_status(answer)
            if not answer.headers.get("Content-Range", "bytes 0-").startswith(f"bytes {offset}-"):
                raise self._error(f"read {path} of", "the hub sends another range than was asked for")
            for piece in answer.iter_bytes(PIECE):
                yield piece[: end - offset]
                offset += len(piece)
                if offset >= end:  # an answer that holds more than was asked for is not read to its end
                    return

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """The client's own messages have the addresses that the hub redirects to, which are signed: they open the file
        to whoever knows them.
        """
        try:
            yield
        except GatedRepoError:
            raise self._error(what, "it is gated: HF_TOKEN must be of somebody who accepted its terms") from None
        except RevisionNotFoundError:
            raise self._error(what, "there is no such revision") from None
        except RemoteEntryNotFoundError:
            raise self._error(what, "there is no such file") from None
        except RepositoryNotFoundError:
            raise self._error(what, "there is no such repository, or it is private and needs HF_TOKEN") from None
        except HfHubHTTPError as error:
            said = error.response.headers.get("X-Error-Message", "no reason is given")
            raise self._error(what, f"{error.response.status_code}: {said}") from None
        except (ValueError, OfflineModeIsEnabled, TooManyRedirects) as error:
            raise self._error(what, str(error)) from None

    def _error(self, what: str, reason: str) -> SourceError:
        return SourceError(f"can't {what} {self.name}: {reason}")
