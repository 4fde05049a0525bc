"""Every kind of store, each a real one: servers run once per session, in processes of their own."""

import json
import os
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clusters.launch.stores import AwsKey, LocalStore, bucket_policy
from clusters.spec import Provider
from clusters.storage import StoreSpec
from tests.local_stores import running
from weights.store import Store, open_store

CEPH = "RAYFLEET_TEST_CEPH"
"""endpoint,access key,secret of a running RADOS gateway, which then is one more store; `ceph.py` starts one."""
PLACES = ["aws", "gcp", "onprem", "directory"] + (["ceph"] if CEPH in os.environ else [])
READABLE = "readable"
"""The key, and the content, of an object that `reader` may read."""
READS = {"s3:GetObject", "s3:ListBucket", "s3:ListBucketMultipartUploads"}


@dataclass(frozen=True)
class Place:
    """A store that runs, and how to open it with credentials that are wrong, or that may only read; None where there
    are no such ones.
    """

    spec: StoreSpec
    environ: Mapping[str, str]
    impostor: tuple[StoreSpec, Mapping[str, str]] | None
    secret: str
    reader: tuple[StoreSpec, Mapping[str, str]] | None = None

    def in_bucket(self, bucket: str) -> Store:
        scheme = self.spec.url.partition("://")[0]
        slash = "/" if scheme == "file" else ""
        return open_store(self.spec.model_copy(update={"url": f"{scheme}://{slash}{bucket}/prefix"}), self.environ)


@pytest.fixture(scope="session", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("store")
    if request.param == "directory":
        yield _directory_place(directory)
        return
    if request.param == "ceph":
        yield _ceph_place(directory)
        return
    provider = Provider(request.param)
    with running(provider, directory=directory) as stores:
        local = stores[provider]
        if provider is Provider.GCP:
            yield _gcs_place(local, directory)
        else:
            # rclone has one key, and says "Internal Error" for what it may only read.
            yield _s3_place(local, directory, may_mint=provider is Provider.AWS)


@pytest.fixture(scope="session")
def store(place: Place) -> Store:
    return open_store(place.spec, place.environ)


@pytest.fixture(scope="session")
def reader(place: Place, store: Store) -> Store:
    """A store that may only be read."""
    if place.reader is None:
        pytest.skip("no credentials here that may only read")
    store.write(READABLE, READABLE.encode())
    return open_store(*place.reader)


@pytest.fixture
def prefix() -> str:
    """Keys of one test, so that tests share a store."""
    return f"{uuid4().hex}/"


def _directory_place(directory: Path) -> Place:
    (directory / "data").mkdir()
    (directory / "read-only").mkdir()
    (directory / "read-only" / READABLE).write_text(READABLE)
    (directory / "read-only").chmod(0o555)
    # Nothing is forbidden to root.
    reader = None if os.geteuid() == 0 else StoreSpec(url=f"file://{directory}/read-only")
    return Place(StoreSpec(url=f"file://{directory}/data"), {}, None, "", (reader, {}) if reader else None)


def _ceph_place(directory: Path) -> Place:
    endpoint, identity, secret = os.environ[CEPH].split(",")
    key, bucket = AwsKey(identity, secret), "rayfleet-contracts"
    _client("s3", endpoint, key).create_bucket(Bucket=bucket)
    spec = StoreSpec(url=f"s3://{bucket}/some/prefix", endpoint=endpoint, region="us-east-1", profile="ceph")
    impostor = (spec, _profile(directory / "forged", "ceph", AwsKey(identity, secret[::-1])))
    return Place(spec, _profile(directory / "credentials", "ceph", key), impostor, secret[::-1])


def _s3_place(local: LocalStore, directory: Path, may_mint: bool) -> Place:
    name = local.spec.profile or ""
    saved = ConfigParser()
    saved.read(local.environ["AWS_SHARED_CREDENTIALS_FILE"])
    key = AwsKey(saved[name]["aws_access_key_id"], saved[name]["aws_secret_access_key"][::-1])
    impostor = (local.spec, _profile(directory / "forged", name, key))
    reader = (local.spec, _profile(directory / "reader", name, _mint_reader(local.spec))) if may_mint else None
    return Place(local.spec, local.environ, impostor, key.secret, reader)


def _mint_reader(spec: StoreSpec) -> AwsKey:
    """A key of moto's that may do what the store's own may, but write."""
    assert spec.endpoint
    policy = bucket_policy(urlsplit(spec.url).netloc)
    for statement in policy["Statement"]:
        statement["Action"] = sorted(READS.intersection(statement["Action"]))
    # So many requests are free again.
    requests.post(f"{spec.endpoint}/moto-api/reset-auth", data=b"3", timeout=10).raise_for_status()
    iam = _client("iam", spec.endpoint, AwsKey("nobody", "nobody"))
    iam.create_user(UserName="reader")
    iam.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=json.dumps(policy))
    made = iam.create_access_key(UserName="reader")["AccessKey"]
    return AwsKey(made["AccessKeyId"], made["SecretAccessKey"])


def _client(service: Any, endpoint: str, key: AwsKey) -> Any:
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id=key.id,
        aws_secret_access_key=key.secret,
    )


def _profile(path: Path, name: str, key: AwsKey) -> dict[str, str]:
    """An environment in which the profile has this key."""
    path.write_text(f"[{name}]\naws_access_key_id = {key.id}\naws_secret_access_key = {key.secret}\n")
    return {"AWS_SHARED_CREDENTIALS_FILE": str(path), "AWS_CONFIG_FILE": os.devnull}


def _gcs_place(local: LocalStore, directory: Path) -> Place:
    assert local.spec.credentials_file
    account = json.loads(Path(local.spec.credentials_file).read_text())
    other_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account["private_key"] = other_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    forged = directory / "forged-account.json"
    forged.write_text(json.dumps(account))
    impostor = (local.spec.model_copy(update={"credentials_file": str(forged)}), local.environ)
    reader = local.spec.model_copy(
        update={"credentials_file": str(Path(local.spec.credentials_file).with_name("reader-account.json"))}
    )
    return Place(local.spec, local.environ, impostor, account["private_key"], (reader, local.environ))
