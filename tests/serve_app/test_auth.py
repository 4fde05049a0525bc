"""Who may ask."""

import hashlib

import pytest

from clusters.spec import KeySpec
from serve_app.auth import Keyring
from serve_app.errors import Unauthorized

KEYS = Keyring([KeySpec(name=name, sha256=hashlib.sha256(name.encode()).hexdigest()) for name in ("ann", "bob")])


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_key_says_whose_it_is(scheme: str) -> None:
    assert KEYS.authenticate(f"{scheme} ann".encode()).name == "ann"
    assert KEYS.authenticate(f"{scheme}  bob ".encode()).name == "bob"


def test_a_key_may_come_as_anthropics_clients_send_it() -> None:
    assert KEYS.authenticate(None, b"ann").name == "ann"
    assert KEYS.authenticate(b"Bearer bob", b"ann").name == "bob"


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer ", b"ann", b"Basic ann"])
def test_no_key(header: bytes | None) -> None:
    with pytest.raises(Unauthorized, match="didn't provide"):
        KEYS.authenticate(header)


@pytest.mark.parametrize("key", ["eve", "ann bob", "é", hashlib.sha256(b"ann").hexdigest()])
def test_a_wrong_key_is_not_repeated(key: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        KEYS.authenticate(f"Bearer {key}".encode())
    assert caught.value.code == "invalid_api_key"
    assert caught.value.headers == {"www-authenticate": "Bearer"}
    assert key not in caught.value.message


@pytest.mark.parametrize("header", [None, b"Bearer x", b"Bearer " + hashlib.sha256(b"").hexdigest().encode()])
def test_without_keys_nobody_may_ask(header: bytes | None) -> None:
    with pytest.raises(Unauthorized, match="rayfleet key"):
        Keyring([]).authenticate(header)
