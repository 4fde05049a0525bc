"""API keys: who may ask."""

import hashlib
from collections.abc import Sequence

from clusters.spec import KeySpec
from serve_app.errors import Unauthorized


class Keyring:
    """Knows keys by their SHA-256 only. A plain hash is enough, since `rayfleet key` makes keys of 256 random bits."""

    def __init__(self, keys: Sequence[KeySpec]):
        self._names = {bytes.fromhex(key.sha256): key.name for key in keys}

    def authenticate(self, authorization: str | None) -> str:
        """The key's name. Raises Unauthorized.

        How long the look-up takes tells nothing of the keys: what is compared is a digest that nobody can steer.
        """
        if not self._names:
            raise Unauthorized("This endpoint has no API keys yet. Its operator makes one with `rayfleet key NAME`.")
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized("You didn't provide an API key. Send it as `Authorization: Bearer <key>`.")
        name = self._names.get(hashlib.sha256(key.strip().encode()).digest())
        if name is None:
            raise Unauthorized("Incorrect API key provided.")
        return name
