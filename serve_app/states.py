"""Talking to the sites' agents, apart from the requests' connections: a busy fleet must stay visible."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import aiohttp

from clusters.state import BoundsOrder, Held
from clusters.watch import StateUnreadable

MAX_BYTES = 4 * 2**20
DRAIN_TIMEOUT_S = 10.0
BOUNDS_TIMEOUT_S = 5.0


class DrainFailed(Exception):
    """A site's agent did not take the order. The message says why, for people."""


class BoundsFailed(Exception):
    """A site's agent did not take the planner's order. The message says why, for people."""


class HttpStates:
    """Reads `{endpoint}/fleet/state` with the site's token, and gives orders."""

    def __init__(
        self,
        endpoints: Mapping[str, str],
        tokens: Mapping[str, str],
        held: Callable[[str], Held] | None = None,
    ):
        """`held` says what to tell a site whenever its state is read: what an ingress holds for it."""
        self._endpoints = endpoints
        self._tokens = tokens
        self._held = held

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def read(self, site: str) -> bytes:
        """Raises StateUnreadable. How long it may take is the caller's business."""
        url, headers = self._address(site, "/fleet/state")
        method, told = ("GET", None) if self._held is None else ("POST", self._held(site).model_dump())
        try:
            async with self._session.request(
                method, url, headers=headers, json=told, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise StateUnreadable(f"its state answers with status {response.status}")
                return await _read_bounded(response)
        except (aiohttp.ClientError, OSError) as error:
            raise StateUnreadable(f"{type(error).__name__}: {error}") from error

    async def drain(self, site: str, deadline_s: float | None) -> None:
        """No new requests; streams that run after `deadline_s` seconds go on elsewhere. None ends it. Raises
        DrainFailed."""
        url, headers = self._address(site, "/fleet/drain")
        timeout = aiohttp.ClientTimeout(total=DRAIN_TIMEOUT_S)
        try:
            async with self._session.post(
                url, headers=headers, json={"deadline_s": deadline_s}, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise DrainFailed(f"the agent of {site} answers with status {response.status}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise DrainFailed(f"the agent of {site} can't be reached: {type(error).__name__}") from error

    async def bound(self, site: str, order: BoundsOrder) -> None:
        """The planner's bounds for every placement of the site. Raises BoundsFailed."""
        url, headers = self._address(site, "/fleet/bounds")
        timeout = aiohttp.ClientTimeout(total=BOUNDS_TIMEOUT_S)
        try:
            async with self._session.post(
                url, headers=headers, json=order.model_dump(mode="json"), timeout=timeout, allow_redirects=False
            ) as response:
                if response.status == 409:
                    raise BoundsFailed(f"the agent of {site} heeds a planner that started later")
                if response.status != 200:
                    raise BoundsFailed(f"the agent of {site} answers with status {response.status}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise BoundsFailed(f"the agent of {site} can't be reached: {type(error).__name__}") from error

    def _address(self, site: str, path: str) -> tuple[str, dict[str, str]]:
        return self._endpoints[site].rstrip("/") + path, {"authorization": f"Bearer {self._tokens[site]}"}


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BYTES:
            raise StateUnreadable(f"its state is larger than {MAX_BYTES} bytes")
    return bytes(body)
