"""Who may use the local stand-in for Google Cloud Storage: service accounts, and the tokens that they are given."""

import hashlib
import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from google.auth import jwt
from google.auth.exceptions import GoogleAuthError

GOOGLE_OAUTH = "https://oauth2.googleapis.com/token"
"""google-auth writes this audience into its assertions, whatever the key file's `token_uri`."""
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE = "https://www.googleapis.com/auth/devstorage."
LIFETIME_S = 3600
"""Of a token, and the longest one of an assertion."""
SKEW_S = 300
"""What the clocks of client and server may be apart."""
FOREVER_S = 10**10
SKEWED = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
    " Check your iat and exp values in the JWT claim."
)

Json = dict[str, Any]


class Refused(Exception):
    """Ends a request early. `reason` is Google's word for it."""

    def __init__(self, status: HTTPStatus, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def body(self) -> Json:
        message = str(self)
        errors = [{"domain": "global", "reason": self.reason, "message": message}]
        return {"error": {"code": self.status.value, "message": message, "errors": errors}}


@dataclass(frozen=True)
class Account:
    """A service account. Its tokens outlive the server's process: nothing of them is kept but what signs them."""

    email: str
    audiences: tuple[str, ...]
    public_key: bytes
    secret: bytes
    may_write: bool

    @classmethod
    def of(cls, key_file: Json, may_write: bool) -> "Account":
        private_key = load_pem_private_key(key_file["private_key"].encode(), password=None)
        public_key = private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        secret = hashlib.sha256(key_file["private_key"].encode()).digest()
        audiences = (key_file["token_uri"], GOOGLE_OAUTH)
        return cls(key_file["client_email"], audiences, public_key, secret, may_write)

    def token(self, expiry: int) -> str:
        return f"{expiry}.{hmac.new(self.secret, str(expiry).encode(), 'sha256').hexdigest()}"


class Accounts:
    """Those of one server."""

    def __init__(self, accounts: Collection[Account]) -> None:
        self._accounts = {account.email: account for account in accounts}

    def grant(self, form: Mapping[str, str], now: float) -> Json:
        """A token in return for an assertion that an account's own key signed. Raises Refused."""
        if form.get("grant_type") != GRANT:
            raise Refused(HTTPStatus.BAD_REQUEST, "unsupported_grant_type", "only service accounts")
        account, claims = self._verified(form.get("assertion", ""))
        if not (claims["iat"] - SKEW_S <= now < claims["exp"] + SKEW_S and claims["exp"] - claims["iat"] <= LIFETIME_S):
            raise Refused(HTTPStatus.BAD_REQUEST, "invalid_grant", SKEWED)
        if SCOPE not in claims.get("scope", ""):
            raise Refused(HTTPStatus.BAD_REQUEST, "invalid_scope", "no scope of Cloud Storage")
        token = account.token(int(now) + LIFETIME_S)
        return {"access_token": token, "token_type": "Bearer", "expires_in": LIFETIME_S}

    def of(self, authorization: str, now: float) -> Account:
        """Whose token it is. Raises Refused."""
        scheme, _, token = authorization.partition(" ")
        expiry = token.partition(".")[0]
        if scheme == "Bearer" and expiry.isascii() and expiry.isdecimal() and int(expiry) > now:
            for account in self._accounts.values():
                if hmac.compare_digest(account.token(int(expiry)).encode(), token.encode()):
                    return account
        raise Refused(HTTPStatus.UNAUTHORIZED, "authError", "Invalid Credentials")

    def _verified(self, assertion: str) -> tuple[Account, Json]:
        try:
            account = self._accounts.get(jwt.decode(assertion, verify=False).get("iss"))  # type: ignore[no-untyped-call]
            if account is None:
                raise Refused(HTTPStatus.BAD_REQUEST, "invalid_grant", "Invalid grant: account not found")
            # Its times are ours to judge: google-auth's words for them are not the server's.
            claims = jwt.decode(  # type: ignore[no-untyped-call]
                assertion, account.public_key, audience=list(account.audiences), clock_skew_in_seconds=FOREVER_S
            )
        except (ValueError, GoogleAuthError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "invalid_grant", "Invalid JWT Signature.") from error
        return account, dict(claims)
