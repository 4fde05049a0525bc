"""Who may ask."""

import hashlib

import pytest

from clusters.spec import KeySpec
from serve_app.auth import Keyring
from serve_app.errors import Unauthorized

KEYS = Keyring([KeySpec(name=name, sha256=hashlib.sha256(name.encode()).hexdigest()) for name in ("ann", "bob")])


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_key_says_whose_it_is(scheme: str) -> None:
    assert KEYS.authenticate(f"{scheme} ann") == "ann"
    assert KEYS.authenticate(f"{scheme}  bob ") == "bob"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "ann", "Basic ann"])
def test_no_key(header: str | None) -> None:
    with pytest.raises(Unauthorized, match="didn't provide"):
        KEYS.authenticate(header)


@pytest.mark.parametrize("key", ["eve", "ann bob", "é", hashlib.sha256(b"ann").hexdigest()])
def test_a_wrong_key_is_not_repeated(key: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        KEYS.authenticate(f"Bearer {key}")
    assert caught.value.code == "invalid_api_key"
    assert caught.value.headers == {"www-authenticate": "Bearer"}
    assert key not in caught.value.message


@pytest.mark.parametrize("header", [None, "Bearer x", f"Bearer {hashlib.sha256(b'').hexdigest()}"])
def test_without_keys_nobody_may_ask(header: str | None) -> None:
    with pytest.raises(Unauthorized, match="rayfleet key"):
        Keyring([]).authenticate(header)
