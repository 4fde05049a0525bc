"""What every contender is given: the same files, the same kind of store, nothing left by the one before."""

import configparser
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.weights.release import make_release
from clusters.launch.processes import Run, end
from clusters.launch.stores import CREDENTIALS, LocalStore, start_store
from clusters.spec import MachinesSpec, PoolSpec, Provider, SiteSpec
from clusters.storage import StoreSpec

BUCKET = "weights"
REGION = "us-east-1"
MODEL = "bench"
HOME = "home"
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Server:
    """`rclone serve s3` on loopback. `run` marks its processes, and nothing else."""

    run: Run
    store: LocalStore
    bucket: Path
    """Its objects are plain files below."""

    @property
    def endpoint(self) -> str:
        return str(self.store.spec.endpoint)

    @property
    def key(self) -> tuple[str, str]:
        """Id and secret."""
        credentials = configparser.ConfigParser()
        credentials.read(self.store.environ[CREDENTIALS])
        profile = credentials[self.store.site]
        return profile["aws_access_key_id"], profile["aws_secret_access_key"]

    @property
    def environ(self) -> Mapping[str, str]:
        """How most clients want to be told of it."""
        key_id, secret = self.key
        return {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": REGION}


@dataclass(frozen=True, slots=True)
class Stage:
    run: Run
    """Of the contenders."""
    cache: Path
    """Where peers are installed."""
    source: Path
    """The release as a directory."""
    size: int
    """Bytes of it."""
    home: Server

    @property
    def prefix(self) -> str:
        """Of the release's keys, in every store. The release must have been pushed to the home."""
        (manifest,) = self.home.bucket.glob(f"models/{MODEL}/*/manifest.json")
        return f"{manifest.parent.relative_to(self.home.bucket)}/"

    @property
    def release(self) -> str:
        return Path(self.prefix).name


@contextmanager
def set_stage(cache: Path, gib: int) -> Iterator[Stage]:
    """A release on the disk and a store without it, both gone afterwards. Raises LaunchError."""
    run = Run.new(cache.resolve() / "weights-run")
    shutil.rmtree(run.directory, ignore_errors=True)
    try:
        size = make_release(run.directory / "source", gib)
        with serving(run, HOME) as home:
            yield Stage(run, cache, run.directory / "source", size, home)
    finally:
        end(run.id)
        shutil.rmtree(run.directory, ignore_errors=True)


@contextmanager
def serving(run: Run, name: str) -> Iterator[Server]:
    """A store with an empty bucket; nothing is left of it. Raises LaunchError."""
    own = Run.new(run.directory / name)
    try:
        store = start_store(own, _site(name), own.directory)
        yield Server(own, store, own.directory / "data" / BUCKET)
    finally:
        end(own.id)
        shutil.rmtree(own.directory, ignore_errors=True)


def _site(name: str) -> SiteSpec:
    return SiteSpec(
        name=name,
        provider=Provider.ONPREM,
        region=REGION,
        jurisdiction="us",
        endpoint="http://127.0.0.1",
        store=StoreSpec(url=f"s3://{BUCKET}"),
        machines=MachinesSpec(head="127.0.0.1"),
        pools=(PoolSpec(name="pool", instance_type="machine", usd_per_hour=1),),
    )
