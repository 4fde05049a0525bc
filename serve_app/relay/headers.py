"""Which headers pass a relay, in both directions."""

from collections.abc import Iterable

RawHeaders = Iterable[tuple[bytes, bytes]]

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
NOT_FOR_SITES = HOP_BY_HOP | {
    b"accept-encoding",
    b"authorization",
    b"content-length",
    b"cookie",
    b"expect",
    b"host",
    b"x-request-id",
}

# `date` and `server` are set by the server that the client talks to, and so is `x-request-id`.
NOT_FOR_CLIENTS = HOP_BY_HOP | {b"date", b"server", b"set-cookie", b"x-request-id"}

OURS = b"x-rayfleet-"


def for_site(headers: RawHeaders, token: str, request_id: str) -> list[tuple[str, str]]:
    """The client's headers as the site gets them."""
    passing = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in _end_to_end(headers, NOT_FOR_SITES)
        if not name.startswith(OURS)
    ]
    own = [("authorization", f"Bearer {token}"), ("accept-encoding", "identity"), ("x-request-id", request_id)]
    return passing + own


def for_client(headers: RawHeaders, site: str, attempts: int) -> list[tuple[bytes, bytes]]:
    """The site's headers as the client gets them."""
    return [
        *_end_to_end(headers, NOT_FOR_CLIENTS),
        (b"x-rayfleet-site", site.encode()),
        (b"x-rayfleet-attempts", str(attempts).encode()),
    ]


def _end_to_end(headers: RawHeaders, dropped: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    lowered = [(name.lower(), value) for name, value in headers]
    # A Connection header may name further headers of this hop.
    named = {part.strip().lower() for name, value in lowered if name == b"connection" for part in value.split(b",")}
    return [(name, value) for name, value in lowered if name not in dropped and name not in named]
