"""API keys: who may ask."""

import hashlib
from collections.abc import Sequence

from clusters.spec import KeySpec
from serve_app.errors import Unauthorized

BEARER = b"bearer "


class Keyring:
    """Knows keys by their SHA-256 only. A plain hash is enough, since `rayfleet key` makes keys of 256 random bits."""

    def __init__(self, keys: Sequence[KeySpec]):
        self._keys = {bytes.fromhex(key.sha256): key for key in keys}

    def authenticate(self, authorization: bytes | None, api_key: bytes | None = None) -> KeySpec:
        """Who it is, by `Authorization: Bearer` or, as Anthropic's clients do, by `x-api-key`. Raises Unauthorized.

        How long the look-up takes tells nothing of the keys: what is compared is a digest that nobody can steer.
        """
        if authorization is not None and authorization[:7].lower() == BEARER:
            secret = authorization[7:].strip()
        else:
            secret = (api_key or b"").strip()
        known = self._keys.get(hashlib.sha256(secret).digest())
        if known is None:
            raise self._stranger(secret)
        return known

    def _stranger(self, secret: bytes) -> Unauthorized:
        if not self._keys:
            return Unauthorized("This endpoint has no API keys yet. Its operator makes one with `rayfleet key NAME`.")
        if not secret:
            return Unauthorized("You didn't provide an API key. Send it as `Authorization: Bearer <key>`.")
        return Unauthorized("Incorrect API key provided.")
