"""One try at one site, up to the first byte of its answer."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from serve_app.relay.headers import RawHeaders
from serve_app.relay.upstream import Answer, Upstream, UpstreamError, UpstreamSilent
from serve_app.routing.facts import Facts

MAX_QUOTE_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Call:
    """A client's request, as it may be sent to any site."""

    facts: Facts
    route: str
    """OpenAI's path, `/v1/…`."""
    headers: RawHeaders
    body: bytes
    request_id: str

    @property
    def path(self) -> str:
        return f"/models/{self.facts.model}{self.route}"


@dataclass(frozen=True, slots=True)
class Begun:
    """The site answers. Whoever holds this closes `answer`."""

    answer: Answer
    first: bytes


@dataclass(frozen=True, slots=True)
class Quote:
    """An engine's own refusal, kept for the client in case that no other site does better."""

    status: int
    headers: RawHeaders
    body: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing of an answer has begun, so another site may try."""

    reason: str
    silent: bool = False
    quote: Quote | None = None


class Verdict(Enum):
    """What a status means for the request."""

    ANSWERED = "the site did its work, which includes telling the client of a mistake"
    BUSY = "the site cannot now; what it says may be told to the client"
    ASTRAY = "the site and the ingress disagree; what it says is not for the client"


def judge(status: int) -> Verdict:
    """A 500 is worth another site: an engine that is dying says so before its server is gone."""
    if status in (408, 429) or status >= 500:
        return Verdict.BUSY
    if status in (401, 403, 404, 405) or not (200 <= status < 300 or 400 <= status < 500):
        return Verdict.ASTRAY
    return Verdict.ANSWERED


async def attempt(upstream: Upstream, site: str, call: Call, first_byte_timeout_s: float) -> Begun | Failed:
    """The first byte of the body is awaited, not only the head: engines send the head before they have a token."""
    answer: Answer | None = None
    begun: Begun | None = None
    try:
        async with asyncio.timeout(first_byte_timeout_s):
            answer = await upstream.post(site, call.path, call.headers, call.request_id, call.body)
            verdict = judge(answer.status)
            if verdict is not Verdict.ANSWERED:
                return await _refusal(answer, verdict)
            first = await answer.read()
            if not first:
                return Failed(f"an empty answer with status {answer.status}")
            begun = Begun(answer, first)
            return begun
    except TimeoutError:
        return Failed(f"no byte within {first_byte_timeout_s:g} s", silent=True)
    except UpstreamSilent as error:
        return Failed(str(error), silent=True)
    except UpstreamError as error:
        return Failed(str(error))
    finally:
        if answer is not None and begun is None:
            answer.close()


async def _refusal(answer: Answer, verdict: Verdict) -> Failed:
    reason = f"status {answer.status}"
    if verdict is Verdict.ASTRAY or not _is_json(answer.headers):
        return Failed(reason)
    body = await _read_all(answer, MAX_QUOTE_BYTES)
    return Failed(reason, quote=Quote(answer.status, answer.headers, body) if body is not None else None)


async def _read_all(answer: Answer, limit: int) -> bytes | None:
    body = b""
    while chunk := await answer.read():
        body += chunk
        if len(body) > limit:
            return None
    return body


def _is_json(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"application/json") for name, value in headers)
