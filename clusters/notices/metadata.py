"""One request to a machine's metadata server: bounded in time and size, past every proxy, redirected by nobody."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import aiohttp

TIMEOUT_S = 5.0
MAX_BYTES = 256 * 2**10


class MetadataError(Exception):
    """The metadata server is away, or does not answer as it should. The message says what, for people."""


@dataclass(frozen=True)
class Answer:
    """`at` is our clock and `theirs` the server's, in seconds since the epoch; None where it has no `Date`."""

    url: str
    status: int
    headers: Mapping[str, str]
    text: str
    at: float
    theirs: float | None

    def expect_ok(self) -> "Answer":
        """Raises MetadataError unless the status is 200."""
        if self.status != 200:
            raise MetadataError(f"{self.url} answers with status {self.status}")
        return self


async def ask(
    url: str,
    headers: Mapping[str, str],
    *,
    method: str = "GET",
    query: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """Raises MetadataError. `timeout_s` is for all of it, so a server that drips bytes holds nobody up."""
    try:
        # A session of its own, which reads no proxies and passwords from the environment: a proxy would answer for
        # another machine, and no keep-alive outlives a metadata server that restarts.
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.request(method, url, params=query, headers=headers, allow_redirects=False) as response,
        ):
            body = await _read_bounded(response)
            now = time.time()
            return Answer(url, response.status, response.headers, body.decode(), now, _clock(response.headers))
    except TimeoutError as error:
        raise MetadataError(f"{url} does not answer within {timeout_s:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise MetadataError(f"{url} can't be read: {type(error).__name__}: {error}") from error
    except UnicodeDecodeError as error:
        raise MetadataError(f"{url} answers with something that is no text") from error


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BYTES:
            raise MetadataError(f"{response.url} answers with more than {MAX_BYTES} bytes")
    return bytes(body)


def _clock(headers: Mapping[str, str]) -> float | None:
    try:
        # It tells whole seconds. The end of this one, so that nobody counts on time that isn't there.
        return parsedate_to_datetime(headers["Date"]).timestamp() + 1
    except (KeyError, ValueError):
        return None
