"""Local object stores that stand for those of the sites: other processes, the real protocols, credentials of their own.

For s3:// of AWS it is moto with IAM enforced, for other s3:// rclone, for gs:// `gcs_server`. All listen on loopback.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clusters.launch.processes import LaunchError, Run, clean_environment, end, free_port, spawn, wait_until
from clusters.spec import Provider, SiteSpec
from clusters.storage import StoreSpec

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
START_TIMEOUT_S = 30
START_ATTEMPTS = 3
"""Between choosing a free port and listening on it, someone else may take it."""
CREDENTIALS = "AWS_SHARED_CREDENTIALS_FILE"
CONFIG = "AWS_CONFIG_FILE"
NO_CLOUD = {"AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true"}
"""There is no instance whose own identity could be asked for."""


@dataclass(frozen=True)
class LocalStore:
    """A running store: how fleet.yaml would describe it, and what the environment must hold to open it."""

    site: str
    spec: StoreSpec
    environ: Mapping[str, str]


@dataclass(frozen=True)
class AwsKey:
    id: str
    secret: str

    @classmethod
    def new(cls) -> "AwsKey":
        return cls("AK" + secrets.token_hex(9).upper(), secrets.token_hex(20))


def start_store(run: Run, site: SiteSpec, directory: Path) -> LocalStore:
    """Starts the store of a site, with its bucket. Its secrets and objects lie in `directory`. Raises LaunchError."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    return _starter(site)(run, site, directory)


def _starter(site: SiteSpec) -> Callable[[Run, SiteSpec, Path], LocalStore]:
    scheme = urlsplit(site.store.url).scheme
    s3 = _start_moto if site.provider is Provider.AWS else _start_rclone
    return {"s3": s3, "gs": _start_gcs, "file": _make_directory}[scheme]


def environ_for_all(stores: Collection[LocalStore], directory: Path) -> dict[str, str]:
    """What a process needs to open every one of the stores: one profile per S3 store, in files below `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    environ = dict(NO_CLOUD)
    for variable, name in ((CREDENTIALS, "aws-credentials"), (CONFIG, "aws-config")):
        profiles = [Path(store.environ[variable]).read_text() for store in stores if variable in store.environ]
        environ[variable] = str(_write_secret(directory / name, "\n".join(profiles)))
    return environ


def _start_moto(run: Run, site: SiteSpec, directory: Path) -> LocalStore:
    region = site.store.region or site.region

    def argv(port: int) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]

    # Four requests are free: they make the bucket and the user that everything after them must authenticate as.
    # Short pages, as S3 may answer them, so that paging is exercised.
    environ = clean_environment() | {"INITIAL_NO_AUTH_ACTION_COUNT": "4", "MOTO_S3_DEFAULT_MAX_KEYS": "100"}
    endpoint = _start(run, _part(site), argv, environ)
    return _s3_store(site, directory, endpoint, region, _mint(endpoint, region, _bucket(site), site.name))


def _mint(endpoint: str, region: str, bucket: str, user: str) -> AwsKey:
    """A bucket, and a key that opens this bucket only."""
    # A third of a second to import, and only needed here.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    def client(service: Any) -> Any:
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=endpoint,
            aws_access_key_id="nobody",
            aws_secret_access_key="nobody",  # noqa: S106 - no one checks it yet
            config=Config(retries={"total_max_attempts": 1}),
        )

    placement = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client("s3").create_bucket(Bucket=bucket, **placement)
        iam = client("iam")
        iam.create_user(UserName=user)
        iam.put_user_policy(UserName=user, PolicyName="weights", PolicyDocument=json.dumps(bucket_policy(bucket)))
        key = iam.create_access_key(UserName=user)["AccessKey"]
    except (BotoCoreError, ClientError) as error:
        raise LaunchError(f"{endpoint} has no bucket {bucket} and no key for it: {error}") from error
    return AwsKey(key["AccessKeyId"], key["SecretAccessKey"])


def bucket_policy(bucket: str) -> dict[str, Any]:
    """What weights need on AWS, and no more."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
                "Resource": f"arn:aws:s3:::{bucket}",
            },
            {
                "Effect": "Allow",
                "Action": [
                    "s3:GetObject",
                    "s3:PutObject",
                    "s3:DeleteObject",
                    "s3:AbortMultipartUpload",
                    "s3:ListMultipartUploadParts",
                ],
                "Resource": f"arn:aws:s3:::{bucket}/*",
            },
        ],
    }


def _start_rclone(run: Run, site: SiteSpec, directory: Path) -> LocalStore:
    data = directory / "data"
    (data / _bucket(site)).mkdir(parents=True, exist_ok=True)
    key = AwsKey.new()

    def argv(port: int) -> list[str]:
        rclone = str(Path(sys.executable).with_name("rclone"))
        return [rclone, "serve", "s3", "--config=", "--addr", f"{HOST}:{port}", str(data)]

    # Not an argument, since arguments are public.
    environ = clean_environment() | {"RCLONE_AUTH_KEY": f'"{key.id},{key.secret}"'}
    endpoint = _start(run, _part(site), argv, environ)
    return _s3_store(site, directory, endpoint, site.store.region or site.region, key)


def _s3_store(site: SiteSpec, directory: Path, endpoint: str, region: str, key: AwsKey) -> LocalStore:
    credentials = f"[{site.name}]\naws_access_key_id = {key.id}\naws_secret_access_key = {key.secret}\n"
    config = f"[profile {site.name}]\nregion = {region}\n"
    environ = NO_CLOUD | {
        CREDENTIALS: str(_write_secret(directory / "aws-credentials", credentials)),
        CONFIG: str(_write_secret(directory / "aws-config", config)),
    }
    spec = StoreSpec(url=site.store.url, endpoint=endpoint, region=region, profile=site.name)
    return LocalStore(site.name, spec, environ)


def _start_gcs(run: Run, site: SiteSpec, directory: Path) -> LocalStore:
    account, reader = directory / "service-account.json", directory / "reader-account.json"
    keys = [_private_key() for _ in (account, reader)]

    def argv(port: int) -> list[str]:
        for path, key in zip((account, reader), keys, strict=True):
            key_file = {
                "type": "service_account",
                "project_id": site.machines.project or "local",
                "private_key_id": secrets.token_hex(20),
                "private_key": key,
                "client_email": f"{site.name}-{path.stem}@local.iam.gserviceaccount.com",
                "client_id": "0",
                "token_uri": f"http://{HOST}:{port}/token",
            }
            _write_secret(path, json.dumps(key_file))
        options = {"port": port, "data": directory / "data", "account": account, "read-only": reader}
        options["bucket"] = _bucket(site)
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        return [sys.executable, "-m", "clusters.launch.gcs_server", *flags]

    endpoint = _start(run, _part(site), argv, clean_environment())
    spec = StoreSpec(url=site.store.url, endpoint=endpoint, credentials_file=str(account))
    return LocalStore(site.name, spec, NO_CLOUD)


def _private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _make_directory(run: Run, site: SiteSpec, directory: Path) -> LocalStore:
    """A directory needs no server, but still one of its own: the declared one may be shared."""
    data = directory / "data"
    data.mkdir(exist_ok=True)
    return LocalStore(site.name, StoreSpec(url=data.resolve().as_uri()), {})


def _start(run: Run, part: str, argv: Callable[[int], list[str]], environ: Mapping[str, str]) -> str:
    """The endpoint of a server that listens now. Raises LaunchError."""
    for _ in range(START_ATTEMPTS - 1):
        try:
            return _start_once(run, part, argv, environ)
        except LaunchError:
            end(run.id, part)
    return _start_once(run, part, argv, environ)


def _start_once(run: Run, part: str, argv: Callable[[int], list[str]], environ: Mapping[str, str]) -> str:
    port = free_port(HOST)
    process = spawn(run, part, argv(port), environ, cwd=ROOT)
    wait_until(run, part, lambda: _listens(process, port), process, START_TIMEOUT_S)
    return f"http://{HOST}:{port}"


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether this very process does: a port that merely answers may be a stranger's."""
    try:
        connections = psutil.Process(process.pid).net_connections("tcp")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)


def _part(site: SiteSpec) -> str:
    return f"store-{site.name}"


def _bucket(site: SiteSpec) -> str:
    return urlsplit(site.store.url).netloc


def _write_secret(path: Path, text: str) -> Path:
    aside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return aside.replace(path)
