"""The stand-in for Google's server refuses what the real one refuses."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from google.auth import crypt, jwt
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from clusters.launch.processes import Run, end
from clusters.launch.stores import LocalStore, start_store
from clusters.spec import Provider
from tests.local_stores import running, site_of

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
OBJECTS = "/storage/v1/b/test-bucket/o"
UPLOAD = f"/upload{OBJECTS}"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
KIB = 2**10
QUANTUM = 256 * KIB
CONTENT = bytes(range(256)) * 4 * KIB
"""Four times the quantum."""


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStore]:
    with running(Provider.GCP, directory=tmp_path_factory.mktemp("gcs")) as stores:
        yield stores[Provider.GCP]


@pytest.fixture(scope="module")
def token(gcs: LocalStore) -> str:
    return token_of(account_file(gcs))


@pytest.fixture(scope="module")
def reader(gcs: LocalStore) -> str:
    return token_of(account_file(gcs).with_name("reader-account.json"))


@pytest.mark.parametrize("authorization", [None, "Bearer made-up", "Basic dTpw"])
def test_no_request_without_a_token(gcs: LocalStore, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    status, answer = ask(gcs, "GET", "/storage/v1/b/test-bucket/o", headers=headers)
    assert (status, answer["error"]["code"]) == (401, 401)
    assert answer["error"]["errors"][0]["reason"] == "authError"


def test_no_token_for_a_forged_assertion(gcs: LocalStore) -> None:
    status, answer = ask(gcs, "POST", "/token", data={"grant_type": GRANT, "assertion": "e30.e30.e30"})
    assert (status, answer["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(("late_s", "lifetime_s"), [(4000, 3600), (-4000, 3600), (0, 7200)])
def test_no_token_for_a_clock_that_is_wrong(gcs: LocalStore, late_s: float, lifetime_s: float) -> None:
    status, answer = ask(gcs, "POST", "/token", data=assertion(gcs, late_s, lifetime_s))
    assert (status, answer["error"]) == (400, "invalid_grant")
    assert "Check your iat and exp values" in answer["error_description"]


@pytest.mark.parametrize("late_s", [-200, 0, 200])
def test_clocks_may_differ_a_little(gcs: LocalStore, late_s: float) -> None:
    assert (ask(gcs, "POST", "/token", data=assertion(gcs, late_s, 3600)))[0] == 200


def test_who_may_only_read_reads(gcs: LocalStore, token: str, reader: str) -> None:
    query = {"uploadType": "media", "name": "readable"}
    assert (ask(gcs, "POST", UPLOAD, token, params=query, data=b"x"))[0] == 200
    assert (ask(gcs, "GET", OBJECTS, reader))[0] == 200
    assert (ask(gcs, "GET", f"{OBJECTS}/readable", reader))[0] == 200
    for method, path in (
        ("POST", f"{UPLOAD}?uploadType=media&name=new"),
        ("POST", f"{UPLOAD}?uploadType=resumable&name=new"),
        ("POST", f"{OBJECTS}/readable/rewriteTo/b/test-bucket/o/new"),
        ("DELETE", f"{OBJECTS}/readable"),
    ):
        status, answer = ask(gcs, method, path, reader)
        assert (status, answer["error"]["errors"][0]["reason"]) == (403, "forbidden")


def test_a_generation_must_match(gcs: LocalStore, token: str) -> None:
    def write(generation: str) -> tuple[int, Any]:
        query = {"uploadType": "media", "name": "once", "ifGenerationMatch": generation}
        return ask(gcs, "POST", UPLOAD, token, params=query, data=b"x")

    status, first = write("0")
    assert status == 200
    status, answer = write("0")
    assert (status, answer["error"]["errors"][0]["reason"]) == (412, "conditionNotMet")
    assert (write(first["generation"]))[0] == 200


def test_a_generation_must_match_where_metadata_name_the_object(gcs: LocalStore, token: str) -> None:
    metadata = json.dumps({"name": "by-metadata"})
    query = {"uploadType": "multipart", "ifGenerationMatch": "0"}
    body = f"--b\nContent-Type: application/json\n\n{metadata}\n--b\nContent-Type: text/plain\n\nx\n--b--".encode()
    headers = {"Content-Type": 'multipart/related; boundary="b"'}
    assert (ask(gcs, "POST", UPLOAD, token, params=query, data=body, headers=headers))[0] == 200
    assert (ask(gcs, "POST", UPLOAD, token, params=query, data=body, headers=headers))[0] == 412


def test_an_upload_keeps_whole_quanta_until_it_is_complete(gcs: LocalStore, token: str) -> None:
    session = begin(gcs, token, "resumed")
    size = len(CONTENT)
    assert put(session, token, f"bytes */{size}") == (308, 0)
    assert put(session, token, f"bytes 0-{QUANTUM + 9}/{size}", CONTENT[: QUANTUM + 10]) == (308, QUANTUM)
    assert put(session, token, f"bytes */{size}") == (308, QUANTUM)
    # What it has it does not look at.
    assert (
        put(session, token, f"bytes 0-{2 * QUANTUM - 1}/{size}", bytes(QUANTUM) + CONTENT[QUANTUM : 2 * QUANTUM])[0]
        == 308
    )
    assert (ask(gcs, "GET", f"{OBJECTS}/resumed", token))[0] == 404
    assert put(session, token, f"bytes {3 * QUANTUM}-{size - 1}/{size}", CONTENT[3 * QUANTUM :])[0] == 503
    assert put(session, token, f"bytes {2 * QUANTUM}-{size - 1}/{size}", CONTENT[2 * QUANTUM :])[0] == 200
    assert put(session, token, f"bytes */{size}")[0] == 200
    assert fetch(gcs, token, "resumed") == CONTENT


def test_an_upload_keeps_what_came_before_the_connection_broke(gcs: LocalStore, token: str) -> None:
    session = begin(gcs, token, "broken")
    send_and_leave(session, token, CONTENT[: 2 * QUANTUM + 5], len(CONTENT))
    deadline = time.monotonic() + 30
    while put(session, token, f"bytes */{len(CONTENT)}") != (308, 2 * QUANTUM):
        assert time.monotonic() < deadline
    assert (
        put(session, token, f"bytes {2 * QUANTUM}-{len(CONTENT) - 1}/{len(CONTENT)}", CONTENT[2 * QUANTUM :])[0] == 200
    )
    assert fetch(gcs, token, "broken") == CONTENT


def test_a_cancelled_upload_is_gone(gcs: LocalStore, token: str) -> None:
    session = begin(gcs, token, "cancelled")
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.delete(session, headers=headers, timeout=30).status_code == 499
    assert requests.delete(session, headers=headers, timeout=30).status_code == 404
    assert put(session, token, "bytes */1")[0] == 404


def test_an_upload_must_find_its_generation_at_the_end_too(gcs: LocalStore, token: str) -> None:
    session = begin(gcs, token, "raced", ifGenerationMatch="0")
    assert (ask(gcs, "POST", UPLOAD, token, params={"uploadType": "media", "name": "raced"}, data=b"x"))[0] == 200
    assert put(session, token, "bytes 0-0/1", b"y")[0] == 412
    assert fetch(gcs, token, "raced") == b"x"


def test_a_large_object_is_rewritten_in_steps(gcs: LocalStore, token: str) -> None:
    content = CONTENT * 9
    ask(gcs, "POST", UPLOAD, token, params={"uploadType": "media", "name": "from"}, data=content)
    path, query, steps = f"{OBJECTS}/from/rewriteTo/b/test-bucket/o/to", {"ifGenerationMatch": "0"}, 0
    while not (answer := (ask(gcs, "POST", path, token, params=query))[1])["done"]:
        assert (ask(gcs, "GET", f"{OBJECTS}/to", token))[0] == 404
        query["rewriteToken"] = answer["rewriteToken"]
        steps += 1
    assert steps == 2
    assert fetch(gcs, token, "to") == content
    assert (ask(gcs, "POST", path, token, params=query))[0] == 412
    assert (ask(gcs, "POST", path, token, params={"rewriteToken": "1-1"}))[0] == 400


def test_a_part_of_an_object_is_read(gcs: LocalStore, token: str) -> None:
    ask(gcs, "POST", UPLOAD, token, params={"uploadType": "media", "name": "ranged"}, data=b"0123456789")
    for asked, status, content in (
        ("2-4", 206, b"234"),
        ("8-", 206, b"89"),
        ("8-99", 206, b"89"),
        ("10-11", 416, None),
    ):
        headers = {"Authorization": f"Bearer {token}", "Range": f"bytes={asked}"}
        answer = requests.get(f"{gcs.spec.endpoint}{OBJECTS}/ranged?alt=media", headers=headers, timeout=30)
        assert answer.status_code == status
        assert content is None or answer.content == content


def test_objects_and_uploads_outlive_the_server(tmp_path: Path) -> None:
    run = Run.new(tmp_path)
    try:
        before = start_store(run, site_of(Provider.GCP), tmp_path / "gcs")
        token = token_of(account_file(before))
        assert put(begin(before, token, "object"), token, "bytes 0-0/1", b"x")[0] == 200
        session = begin(before, token, "upload")
        assert put(session, token, f"bytes 0-{QUANTUM - 1}/{len(CONTENT)}", CONTENT[:QUANTUM]) == (308, QUANTUM)
        end(run.id)
        after = start_store(run, site_of(Provider.GCP), tmp_path / "gcs")
        token, url = token_of(account_file(after)), urlsplit(session)
        assert fetch(after, token, "object") == b"x"
        assert put(f"{after.spec.endpoint}{url.path}?{url.query}", token, f"bytes */{len(CONTENT)}") == (308, QUANTUM)
    finally:
        end(run.id)


def test_only_the_storage_apis_are_there(gcs: LocalStore, token: str) -> None:
    # The emulator also has ways around them: public files, and an address that wipes everything.
    for path in ("/wipe", "/test-bucket/once", "/b/test-bucket/o"):
        assert (ask(gcs, "GET", path, token))[0] == 404


def test_the_key_file_is_private(gcs: LocalStore) -> None:
    assert account_file(gcs).stat().st_mode & 0o777 == 0o600


def account_file(gcs: LocalStore) -> Path:
    assert gcs.spec.credentials_file
    return Path(gcs.spec.credentials_file)


def token_of(key_file: Path) -> str:
    credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
        str(key_file), scopes=[SCOPE]
    )
    with requests.Session() as session:
        credentials.refresh(Request(session))
    return str(credentials.token)


def assertion(gcs: LocalStore, late_s: float, lifetime_s: float) -> dict[str, str]:
    """What asks for a token, by a clock that is `late_s` behind."""
    account = json.loads(account_file(gcs).read_text())
    issued = int(time.time() - late_s)
    claims = {"iss": account["client_email"], "aud": account["token_uri"], "scope": SCOPE}
    signer = crypt.RSASigner.from_service_account_info(account)  # type: ignore[no-untyped-call]
    signed = jwt.encode(signer, claims | {"iat": issued, "exp": issued + lifetime_s})  # type: ignore[no-untyped-call]
    return {"grant_type": GRANT, "assertion": signed.decode()}


def begin(gcs: LocalStore, token: str, name: str, **query: str) -> str:
    """The address of a new resumable upload."""
    query |= {"uploadType": "resumable", "name": name}
    headers = {"Authorization": f"Bearer {token}"}
    answer = requests.post(f"{gcs.spec.endpoint}{UPLOAD}", params=query, headers=headers, timeout=30)
    assert answer.status_code == 200
    return answer.headers["Location"]


def put(session: str, token: str, content_range: str, content: bytes = b"") -> tuple[int, int]:
    """The status, and how many bytes are kept."""
    headers = {"Authorization": f"Bearer {token}", "Content-Range": content_range}
    answer = requests.put(session, data=content, headers=headers, timeout=30)
    return answer.status_code, int(answer.headers.get("Range", "bytes=0--1").split("-", 1)[1]) + 1


def send_and_leave(session: str, token: str, content: bytes, size: int) -> None:
    """Promises `size` bytes and sends fewer."""
    url = urlsplit(session)
    head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Length: {size}\r\nContent-Range: bytes 0-{size - 1}/{size}\r\n\r\n"
    with socket.create_connection((url.hostname or "", url.port or 0)) as connection:
        connection.sendall(head.encode() + content)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(KIB):
            pass


def fetch(gcs: LocalStore, token: str, name: str) -> bytes:
    headers = {"Authorization": f"Bearer {token}"}
    answer = requests.get(f"{gcs.spec.endpoint}{OBJECTS}/{name}?alt=media", headers=headers, timeout=30)
    assert answer.status_code == 200
    return answer.content


def ask(gcs: LocalStore, method: str, path: str, token: str | None = None, **rest: Any) -> tuple[int, Any]:
    """The status and the answer."""
    headers = {**rest.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
    answer = requests.request(method, f"{gcs.spec.endpoint}{path}", headers=headers, timeout=30, **rest)
    return answer.status_code, answer.json() if answer.content else None
