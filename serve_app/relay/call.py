"""A client's request, as it may be sent to any target."""

import msgspec

from serve_app.relay.headers import Passing
from serve_app.routing.facts import Facts


class Call(msgspec.Struct, frozen=True, gc=False):
    """Nothing downstream looks into the body again, unless a stream must be continued."""

    facts: Facts
    route: str
    """Path as the client asked for it, `/v1/…`."""
    passing: Passing
    """The client's headers, for targets."""
    body: bytes
    request_id: str
    key: str
    """Its name."""
    continuable: bool
    """Whether its stream, if it is cut, may go on elsewhere: then what was delivered is kept."""
    has_stops: bool
    """Whether there are stop strings: an engine holds text back for them, so that the text must be kept, too."""
    asks_ids: bool
    """Whether engines are asked for token ids, which the client did not ask for: they are taken out again."""

    @property
    def site_path(self) -> bytes:
        return f"/models/{self.facts.model}{self.route}".encode()


ASK_IDS = b'{"return_token_ids":true,'


def asking_for_ids(body: bytes) -> bytes:
    """The body of a JSON object with at least one field, with one more in front; not a byte of the rest is touched."""
    return ASK_IDS + body[body.index(b"{") + 1 :]
