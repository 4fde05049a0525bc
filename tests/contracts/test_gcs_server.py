"""The stand-in for Google's server refuses what the real one refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from clusters.launch.stores import LocalStore
from clusters.spec import Provider
from tests.local_stores import running

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
UPLOAD = "/upload/storage/v1/b/test-bucket/o"


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStore]:
    with running(Provider.GCP, directory=tmp_path_factory.mktemp("gcs")) as stores:
        yield stores[Provider.GCP]


@pytest.fixture(scope="module")
def token(gcs: LocalStore) -> str:
    credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
        gcs.spec.credentials_file, scopes=[SCOPE]
    )
    with requests.Session() as session:
        credentials.refresh(Request(session))
    return str(credentials.token)


@pytest.mark.parametrize("authorization", [None, "Bearer made-up", "Basic dTpw"])
async def test_no_request_without_a_token(gcs: LocalStore, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    status, answer = await ask(gcs, "GET", "/storage/v1/b/test-bucket/o", headers=headers)
    assert (status, answer["error"]["code"]) == (401, 401)
    assert answer["error"]["errors"][0]["reason"] == "authError"


async def test_no_token_for_a_forged_assertion(gcs: LocalStore) -> None:
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "e30.e30.e30"}
    status, answer = await ask(gcs, "POST", "/token", data=form)
    assert (status, answer["error"]) == (400, "invalid_grant")


async def test_a_generation_must_match(gcs: LocalStore, token: str) -> None:
    async def write(generation: str) -> tuple[int, Any]:
        query = {"uploadType": "media", "name": "once", "ifGenerationMatch": generation}
        return await ask(gcs, "POST", UPLOAD, token, params=query, data=b"x")

    status, first = await write("0")
    assert status == 200
    status, answer = await write("0")
    assert (status, answer["error"]["errors"][0]["reason"]) == (412, "conditionNotMet")
    assert (await write(first["generation"]))[0] == 200


async def test_a_generation_must_match_where_metadata_name_the_object(gcs: LocalStore, token: str) -> None:
    metadata = json.dumps({"name": "by-metadata"})
    query = {"uploadType": "multipart", "ifGenerationMatch": "0"}
    body = f"--b\nContent-Type: application/json\n\n{metadata}\n--b\nContent-Type: text/plain\n\nx\n--b--".encode()
    headers = {"Content-Type": 'multipart/related; boundary="b"'}
    assert (await ask(gcs, "POST", UPLOAD, token, params=query, data=body, headers=headers))[0] == 200
    assert (await ask(gcs, "POST", UPLOAD, token, params=query, data=body, headers=headers))[0] == 412


async def test_only_the_storage_apis_are_there(gcs: LocalStore, token: str) -> None:
    # The emulator also has ways around them: public files, and an address that wipes everything.
    for path in ("/wipe", "/test-bucket/once", "/b/test-bucket/o"):
        assert (await ask(gcs, "GET", path, token))[0] == 404


def test_the_key_file_is_private(gcs: LocalStore) -> None:
    assert gcs.spec.credentials_file
    assert Path(gcs.spec.credentials_file).stat().st_mode & 0o777 == 0o600


async def ask(
    gcs: LocalStore,
    method: str,
    path: str,
    token: str | None = None,
    headers: dict[str, str] | None = None,
    **rest: Any,
) -> tuple[int, Any]:
    headers = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{gcs.spec.endpoint}{path}", headers=headers, **rest) as answer,
    ):
        return answer.status, await answer.json(content_type=None)
