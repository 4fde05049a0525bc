"""Which headers pass a relay, in both directions. Names are lower-case bytes throughout."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from serve_app.relay.connection import Headers
from serve_app.relay.targets import Target

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)

# The client's key stays here, the site gets its own token. Answers are asked for uncompressed: a stream's events must
# be seen.
# Serve's own header for multiplexed models would send a request to replicas that have none, and split batches.
NOT_FOR_SITES = HOP_BY_HOP | {
    b"accept-encoding",
    b"authorization",
    b"content-length",
    b"cookie",
    b"expect",
    b"host",
    b"serve_multiplexed_model_id",
    b"x-api-key",
    b"x-request-id",
}

# A stranger learns nothing of the client but what the request needs.
FOR_HOSTED = frozenset((b"accept", b"content-type", b"openai-beta", b"anthropic-beta", b"user-agent"))

# `date` is set by the server that the client talks to, and so is `x-request-id`. What an answer weighs is said anew.
NOT_FOR_CLIENTS = HOP_BY_HOP | {b"content-length", b"date", b"server", b"set-cookie", b"x-request-id"}

OURS = b"x-rayfleet-"
ONE_HOP = frozenset((b"keep-alive", b"close", b"Keep-Alive", b"Close"))
"""Values of `connection` that name no further header."""


@dataclass(frozen=True, slots=True)
class Passing:
    """A client's headers, written out as targets get them."""

    for_sites: bytes
    for_hosted: bytes

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        named = _named(headers)
        end_to_end = [each for each in headers if each[0] not in NOT_FOR_SITES and each[0] not in named]
        return cls(
            b"".join(b"%b: %b\r\n" % each for each in end_to_end if not each[0].startswith(OURS)),
            b"".join(b"%b: %b\r\n" % each for each in end_to_end if each[0] in FOR_HOSTED),
        )


def request_head(target: Target, path: bytes, passing: Passing, request_id: str, size: int) -> bytes:
    """The head of a request for a body of `size` bytes."""
    return b"POST %b%b HTTP/1.1\r\n%baccept-encoding: identity\r\nx-request-id: %b\r\ncontent-length: %d\r\n%b\r\n" % (
        target.base,
        path,
        target.own_headers,
        request_id.encode(),
        size,
        passing.for_sites if target.hosted is None else passing.for_hosted,
    )


def for_client(headers: Headers) -> Headers:
    """The target's headers as the client gets them."""
    named = _named(headers)
    return [header for header in headers if header[0] not in NOT_FOR_CLIENTS and header[0] not in named]


def ours(request_id: str, site: str, attempts: int, held_s: float) -> Headers:
    """Who answered, after how many tries, and how long the request was held before them."""
    return [
        (b"x-request-id", request_id.encode()),
        (b"x-rayfleet-site", site.encode()),
        (b"x-rayfleet-attempts", b"%d" % attempts),
        (b"x-rayfleet-queue-ms", b"%d" % (held_s * 1000)),
    ]


def value_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    return next((value for each, value in headers if each == name), None)


def _named(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Headers that `connection` declares to be of this hop."""
    for name, value in headers:
        if name == b"connection" and value not in ONE_HOP:
            return frozenset(part.strip().lower() for part in value.split(b","))
    return frozenset()
