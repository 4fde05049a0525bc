"""The way to the sites: pooled connections, and the one place where an HTTP client's exceptions are translated."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

import aiohttp
from yarl import URL

from serve_app.relay.headers import RawHeaders, for_site

MAX_CONNECTIONS_PER_SITE = 4096
KEEP_ALIVE_S = 15.0
"""Below what servers usually grant, so that a pooled connection is rarely closed just as a request goes out on it."""
LARGE_BODY_BYTES = 2**16


class UpstreamError(Exception):
    """A site did not answer, or not to the end. The message says how, for people."""


class UpstreamSilent(UpstreamError):
    """It took too long."""


class Answer(Protocol):
    """A site's answer, whose head has arrived."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> RawHeaders: ...

    async def read(self) -> bytes:
        """The next bytes of the body as they come, b"" at its end. Raises UpstreamError when it was cut."""

    def close(self) -> None:
        """Give the connection back after the end of the body; before, break it off so that the site stops."""


class Upstream(Protocol):
    """Sends requests to sites."""

    async def post(self, site: str, path: str, headers: RawHeaders, request_id: str, body: bytes) -> Answer:
        """Raises UpstreamError when no answer begins."""


class HttpUpstream:
    """Upstream over aiohttp. It follows no redirect, keeps no cookie, and leaves bodies as they are."""

    def __init__(self, endpoints: Mapping[str, str], tokens: Mapping[str, str], connect_timeout_s: float):
        self._endpoints = endpoints
        self._tokens = tokens
        self._connect_timeout_s = connect_timeout_s

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, limit_per_host=MAX_CONNECTIONS_PER_SITE, keepalive_timeout=KEEP_ALIVE_S
            ),
            # `connect` includes the wait for a place in the pool. All other limits are the relay's.
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._connect_timeout_s, sock_connect=self._connect_timeout_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def post(self, site: str, path: str, headers: RawHeaders, request_id: str, body: bytes) -> Answer:
        with _translated():
            response = await self._session.post(
                self._url(site, path),
                headers=for_site(headers, self._tokens[site], request_id),
                # A large body is written in pieces, so that it does not hold up the loop.
                data=body if len(body) < LARGE_BODY_BYTES else io.BytesIO(body),
                allow_redirects=False,
            )
        return _HttpAnswer(response)

    def _url(self, site: str, path: str) -> URL:
        return URL(self._endpoints[site].rstrip("/") + path, encoded=True)


class _HttpAnswer:
    def __init__(self, response: aiohttp.ClientResponse):
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> RawHeaders:
        return self._response.raw_headers

    async def read(self) -> bytes:
        with _translated():
            return await self._response.content.readany()

    def close(self) -> None:
        self._response.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except aiohttp.ServerTimeoutError as error:
        raise UpstreamSilent("no connection in time") from error
    except aiohttp.ClientConnectorError as error:
        raise UpstreamError("no connection") from error
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamError(f"connection lost ({type(error).__name__})") from error
