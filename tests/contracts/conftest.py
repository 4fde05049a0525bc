"""Every kind of store, each a real one: servers run once per session, in processes of their own."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clusters.launch.stores import LocalStore
from clusters.spec import Provider, StoreSpec
from tests.local_stores import running
from weights.store import Store, open_store


@dataclass(frozen=True)
class Place:
    """A store that runs, and one that differs in credentials only; None where there are none."""

    spec: StoreSpec
    environ: Mapping[str, str]
    impostor: tuple[StoreSpec, Mapping[str, str]] | None
    secret: str

    def in_bucket(self, bucket: str) -> Store:
        scheme = self.spec.url.partition("://")[0]
        slash = "/" if scheme == "file" else ""
        return open_store(self.spec.model_copy(update={"url": f"{scheme}://{slash}{bucket}/prefix"}), self.environ)


@pytest.fixture(scope="session", params=["aws", "gcp", "onprem", "directory"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("store")
    if request.param == "directory":
        yield Place(StoreSpec(url=f"file://{directory}"), {}, None, "")
        return
    provider = Provider(request.param)
    with running(provider, directory=directory) as stores:
        local = stores[provider]
        yield _gcs_place(local, directory) if local.spec.credentials_file else _s3_place(local, directory)


@pytest.fixture(scope="session")
def store(place: Place) -> Store:
    return open_store(place.spec, place.environ)


@pytest.fixture
def prefix() -> str:
    """Keys of one test, so that tests share a store."""
    return f"{uuid4().hex}/"


def _s3_place(local: LocalStore, directory: Path) -> Place:
    credentials = Path(local.environ["AWS_SHARED_CREDENTIALS_FILE"]).read_text()
    secret = credentials.rpartition(" = ")[2].strip()
    forged = directory / "forged-credentials"
    forged.write_text(credentials.replace(secret, secret[::-1]))
    impostor = (local.spec, {**local.environ, "AWS_SHARED_CREDENTIALS_FILE": str(forged)})
    return Place(local.spec, local.environ, impostor, secret[::-1])


def _gcs_place(local: LocalStore, directory: Path) -> Place:
    assert local.spec.credentials_file
    account = json.loads(Path(local.spec.credentials_file).read_text())
    other_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account["private_key"] = other_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    forged = directory / "forged-account.json"
    forged.write_text(json.dumps(account))
    impostor = (local.spec.model_copy(update={"credentials_file": str(forged)}), local.environ)
    return Place(local.spec, local.environ, impostor, account["private_key"])
