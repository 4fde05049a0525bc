"""What is particular to Google Cloud Storage; what it has in common with other stores is in test_store.py."""

import json
import random
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from clusters.launch.stores import LocalStore
from clusters.spec import Provider
from tests.local_stores import running
from weights.errors import AccessDenied, NotFound, StoreError
from weights.manifest import PART
from weights.store import Store, open_store
from weights.stores.gcs_bucket import SCOPE, Bucket, clock_hint
from weights.stores.gcs_names import TRIES, Names

QUANTUM = 2**18
CONTENT = random.Random(3).randbytes(2 * PART + 5)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStore]:
    with running(Provider.GCP, directory=tmp_path_factory.mktemp("gcs")) as stores:
        yield stores[Provider.GCP]


@pytest.fixture
def store(gcs: LocalStore) -> Store:
    return open_store(gcs.spec, gcs.environ)


def test_an_upload_goes_on_in_the_middle_of_a_part(gcs: LocalStore, store: Store) -> None:
    upload = store.upload("middle", len(CONTENT))
    session = upload.token.partition("#")[0]
    send_and_leave(gcs, session, CONTENT[: 3 * QUANTUM + 1])
    wait_until_kept(gcs, session, 3 * QUANTUM)
    again = store.upload("middle", len(CONTENT), upload.token)
    assert again.landed() == frozenset()
    # Only what the server lacks is sent: of what it has, these bytes would be wrong.
    again.send(0, bytes(3 * QUANTUM) + CONTENT[3 * QUANTUM : PART])
    again.send(1, CONTENT[PART : 2 * PART])
    again.send(2, CONTENT[2 * PART :])
    again.complete()
    assert b"".join(store.read("middle", 0, len(CONTENT))) == CONTENT


def test_a_part_whose_answer_was_lost_is_sent_again(store: Store) -> None:
    upload = store.upload("twice", len(CONTENT))
    behind = store.upload("twice", len(CONTENT), upload.token)
    upload.send(0, CONTENT[:PART])
    for number in range(3):
        behind.send(number, CONTENT[number * PART : (number + 1) * PART])
    behind.complete()
    behind.complete()
    assert b"".join(store.read("twice", 0, len(CONTENT))) == CONTENT


def test_parts_out_of_order_are_refused(store: Store) -> None:
    upload = store.upload("order", len(CONTENT))
    with pytest.raises(StoreError, match="order: the bytes from 16,777,216 come before those from 0"):
        upload.send(1, CONTENT[PART : 2 * PART])
    with pytest.raises(StoreError, match="its last part has not landed"):
        upload.complete()


def test_a_session_that_goes_meanwhile_is_an_error_that_says_so(store: Store) -> None:
    upload = store.upload("gone", len(CONTENT))
    store.upload("gone", len(CONTENT), upload.token).abort()
    with pytest.raises(StoreError, match="the session is gone; begin anew"):
        upload.send(0, CONTENT[:PART])


def test_no_error_tells_the_address_of_a_session(tmp_path: Path) -> None:
    with running(Provider.GCP, directory=tmp_path) as stores:
        gone = stores[Provider.GCP]
        upload = open_store(gone.spec, gone.environ).upload("secret", len(CONTENT))
    with pytest.raises(StoreError, match=r"can't upload secret: .*Connection refused") as caught:
        upload.send(0, CONTENT[:PART])
    assert "upload_id" not in str(caught.value)


def test_who_may_only_read_learns_which_permission_is_missing(gcs: LocalStore, store: Store) -> None:
    store.write("readable", b"x")
    key_file = account_file(gcs).with_name("reader-account.json")
    reader = open_store(gcs.spec.model_copy(update={"credentials_file": str(key_file)}), {})
    assert reader.find("readable")
    assert b"".join(reader.read("readable", 0, 1)) == b"x"
    for operation in (
        lambda: reader.write("new", b"x"),
        lambda: reader.copy("readable", "new", 1),
        lambda: reader.upload("new", len(CONTENT)),
        lambda: reader.conditional,
    ):
        with pytest.raises(AccessDenied, match=r"needs .*storage\.objects\.create"):
            operation()
    with pytest.raises(AccessDenied, match=r"storage\.objects\.delete"):
        reader.delete("readable")


def test_the_environment_may_name_the_key_file(gcs: LocalStore) -> None:
    spec = gcs.spec.model_copy(update={"credentials_file": None})
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(account_file(gcs))}
    assert open_store(spec, environ).find("absent") is None


def test_a_workload_identity_may_sign_in(gcs: LocalStore, tmp_path: Path) -> None:
    # The local server knows none, and says so: it was asked for a token in its name.
    (tmp_path / "identity").write_text("hidden")
    workload = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "credential_source": {"file": str(tmp_path / "identity")},
        "token_url": json.loads(account_file(gcs).read_text())["token_uri"],
    }
    with pytest.raises(AccessDenied, match="only service accounts") as caught:
        store_with(gcs, tmp_path / "workload.json", workload).find("key")
    assert "hidden" not in str(caught.value)


def test_a_user_may_sign_in(gcs: LocalStore, tmp_path: Path) -> None:
    # At Google only, so that nobody is asked here.
    user = {"type": "authorized_user", "client_id": "c", "client_secret": "hidden", "refresh_token": "hidden"}
    store_with(gcs, tmp_path / "user.json", user)


def test_a_token_that_the_server_forgot_is_replaced(gcs: LocalStore, store: Store) -> None:
    store.write("there", b"x")
    bucket = Bucket(gcs.spec, gcs.environ)
    names = Names(bucket)
    for ask in (lambda: names.page("there", None, 1)["items"], lambda: bucket.request("GET", bucket.at("there"))):
        bucket.sign_in()
        bucket.credentials.token = "made-up"
        assert ask()


def test_a_listing_survives_a_server_that_stumbles(gcs: LocalStore) -> None:
    page = json.dumps({"items": [{"name": "a", "size": "1", "generation": "7", "updated": "2026-01-01T12:00:00Z"}]})
    with answering([(503, ""), (200, page)]) as (endpoint, asked):
        (listed,) = open_store(gcs.spec.model_copy(update={"endpoint": endpoint}), {}).objects("")
    assert (listed.key, listed.size, listed.version, listed.modified) == ("a", 1, "7", NOON.timestamp())
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "body", "kind", "words", "times"),
    [
        (200, "no JSON", StoreError, "can't find key: Expecting value", 1),
        (400, '{"error": {"message": "invalid page"}}', StoreError, "can't find key: invalid page", 1),
        (401, '{"error": {"message": "who?"}}', AccessDenied, r"401 who\? \(needs storage\.objects\.list", 2),
        (403, '{"error": {"message": "no!"}}', AccessDenied, r"403 no! \(needs storage\.objects\.list", 1),
        (404, '{"error": {"message": "what?"}}', NotFound, "404 no such bucket", 1),
        (502, "", StoreError, "can't find key: 502 Bad Gateway", TRIES),
        (503, '{"error": {"message": "later"}}', StoreError, "can't find key: 503 later$", TRIES),
    ],
)
def test_what_the_server_says_is_told(
    gcs: LocalStore, status: int, body: str, kind: type[StoreError], words: str, times: int
) -> None:
    with answering([(status, body)]) as (endpoint, asked):
        store = open_store(gcs.spec.model_copy(update={"endpoint": endpoint}), {})
        with pytest.raises(StoreError, match=words) as caught:
            store.find("key")
    assert type(caught.value) is kind
    assert len(asked) == times


@pytest.mark.parametrize("content", [None, "", "{}", '{"type": "made-up"}'])
def test_a_key_file_that_is_none_is_an_error(gcs: LocalStore, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "account.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AccessDenied, match="credentials_file"):
        open_store(gcs.spec.model_copy(update={"credentials_file": str(path)}), {})


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (2, "2:00:00 ahead of the server's"),
        (-30, "1 day, 6:00:00 behind the server's"),
        (0, "set this machine's clock"),
    ],
)
def test_how_far_clocks_are_apart_is_told(hours: int, words: str) -> None:
    assert words in clock_hint(format_datetime(NOON, usegmt=True), NOON.timestamp() + 3600 * hours)
    assert clock_hint(None, NOON.timestamp()) == "set this machine's clock"


def account_file(gcs: LocalStore) -> Path:
    assert gcs.spec.credentials_file
    return Path(gcs.spec.credentials_file)


def store_with(gcs: LocalStore, path: Path, credentials: object) -> Store:
    path.write_text(json.dumps(credentials))
    return open_store(gcs.spec.model_copy(update={"credentials_file": str(path)}), {})


def bearer(gcs: LocalStore) -> str:
    credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
        str(account_file(gcs)), scopes=[SCOPE]
    )
    with requests.Session() as session:
        credentials.refresh(Request(session))
    return f"Bearer {credentials.token}"


def send_and_leave(gcs: LocalStore, session: str, content: bytes) -> None:
    """Promises all of CONTENT and sends less."""
    url, size = urlsplit(session), len(CONTENT)
    head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: {bearer(gcs)}\r\n"
    head += f"Content-Length: {size}\r\nContent-Range: bytes 0-{size - 1}/{size}\r\n\r\n"
    with socket.create_connection((url.hostname or "", url.port or 0)) as connection:
        connection.sendall(head.encode() + content)


def wait_until_kept(gcs: LocalStore, session: str, kept: int) -> None:
    headers = {"Authorization": bearer(gcs), "Content-Range": f"bytes */{len(CONTENT)}"}
    for _ in range(1000):
        answer = requests.put(session, headers=headers, timeout=30)
        if answer.headers.get("Range") == f"bytes=0-{kept - 1}":
            return
    raise AssertionError(f"the server does not keep {kept:,} bytes")


@contextmanager
def answering(answers: Sequence[tuple[int, str]]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers, the last one for ever: its address, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, body = answers[min(len(asked), len(answers)) - 1]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
