"""The names in a bucket of Google Cloud Storage, by gcsfs: listed, copied and removed. Bytes go by `gcs_bucket`."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import aiohttp
import requests
from fsspec.exceptions import FSTimeoutError
from google.auth.exceptions import TransportError
from requests.utils import get_environ_proxies, select_proxy

from weights.stores.gcs_bucket import ATTEMPTS, TIMEOUT_S, Bucket, Failed, Unanswered, pause

# Its experimental half asks Google's own servers for each bucket's layout: a minute of silence at any other server.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

from gcsfs.core import GCSFileSystem
from gcsfs.retry import HttpError, NonRetryableError, retry_request

TRIES = 3
"""Of gcsfs, which pauses for 1 to 2 s after the first one and for 2 to 3 s after the second."""

# It reports what it tries again through logging, with tracebacks; whatever is final is raised as well.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


class Names:
    """Its methods raise Failed, Unanswered and GoogleAuthError: for use below `Bucket.translated`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        connect_s, answer_s = TIMEOUT_S
        self._files = _Files(
            token=bucket.credentials,
            endpoint_url=bucket.endpoint,
            requests_timeout=aiohttp.ClientTimeout(total=answer_s, sock_connect=connect_s),
            # The one that bytes go through; aiohttp would look for passwords in .netrc along with it.
            session_kwargs={"proxy": select_proxy(bucket.endpoint, get_environ_proxies(bucket.endpoint))},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def page(self, prefix: str, token: str | None, size: int) -> Mapping[str, Any]:
        """At most `size` objects in the order of their names, from where `token`, an earlier page's, says."""
        query = {"prefix": self._bucket.prefix + prefix, "pageToken": token, "maxResults": size}
        page: Mapping[str, Any] = self._answer(
            partial(self._files.call, "GET", "b/{}/o", self._bucket.name, json_out=True, **query)
        )
        return page

    def copy(self, source: str, key: str) -> None:
        """In as many requests as the server wants."""
        self._answer(partial(self._files.cp_file, self._path(source), self._path(key)))

    def delete(self, key: str) -> None:
        # Not by `rm_file`, which without a key removes the bucket.
        self._answer(partial(self._files.call, "DELETE", "b/{}/o/{}", self._bucket.name, self._bucket.prefix + key))

    def _path(self, key: str) -> str:
        return f"{self._bucket.name}/{self._bucket.prefix}{key}"

    def _answer(self, ask: Callable[[], Any]) -> Any:
        with _understood():
            self._sign_in()
            try:
                return ask()
            except HttpError as error:
                if error.code != 401:
                    raise
                self._bucket.forget_token()
                self._sign_in()
                return ask()

    def _sign_in(self) -> None:
        """gcsfs would take a refused key for a refused token, and tell nothing of why."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._bucket.sign_in()
            except TransportError:
                if attempt == ATTEMPTS:
                    raise
                pause(attempt)
            else:
                return


class _Files(GCSFileSystem):  # type: ignore[misc]  # gcsfs has no types
    """gcsfs itself tries six times, for half a minute and more, and has no option for it."""

    _request = retry_request(retries=TRIES)(GCSFileSystem._request.__wrapped__)


@contextmanager
def _understood() -> Iterator[None]:
    """gcsfs has an exception of its own kind for some statuses, and none for others."""
    try:
        yield
    except FileNotFoundError as error:
        raise Failed(404, "no such bucket or object") from error
    except HttpError as error:
        raise Failed(error.code, str(error.message).removesuffix(f", {error.code}")) from error
    except requests.exceptions.ProxyError as error:
        raise Failed(502, "Bad Gateway") from error
    except FSTimeoutError as error:
        raise Unanswered("no answer in time") from error
    except (OSError, ValueError, NonRetryableError, aiohttp.ClientError) as error:
        about, _, message = str(error).partition("\n")
        if about.startswith("Forbidden"):
            raise Failed(403, message) from error
        raise Unanswered(message or about or type(error).__name__) from error
