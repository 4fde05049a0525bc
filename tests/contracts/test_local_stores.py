"""What the launcher hands out opens the site's own store and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters.launch.processes import Run, end, find
from clusters.launch.stores import LocalStore, environ_for_all, start_store
from clusters.spec import Provider
from clusters.storage import StoreSpec
from tests.local_stores import running, site_of
from weights.errors import AccessDenied
from weights.store import open_store


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Provider, LocalStore]]:
    with running(*Provider, directory=tmp_path_factory.mktemp("stores")) as stores:
        yield stores


def test_one_environment_opens_all(stores: dict[Provider, LocalStore], tmp_path: Path) -> None:
    environ = environ_for_all(stores.values(), tmp_path)
    for local in stores.values():
        store = open_store(local.spec, environ)
        store.write("key", local.site.encode())
        assert b"".join(store.read("key", 0, 100)) == local.site.encode()


def test_a_site_opens_only_its_own(stores: dict[Provider, LocalStore]) -> None:
    aws, onprem = stores[Provider.AWS], stores[Provider.ONPREM]
    for mine, other in ((aws, onprem), (onprem, aws)):
        spec = other.spec.model_copy(update={"profile": mine.spec.profile})
        with pytest.raises(AccessDenied):
            open_store(spec, mine.environ).write("key", b"x")
        with pytest.raises(AccessDenied, match="profile"):
            open_store(other.spec, mine.environ)


def test_an_aws_key_opens_only_its_bucket(stores: dict[Provider, LocalStore]) -> None:
    aws = stores[Provider.AWS]
    store = open_store(aws.spec.model_copy(update={"url": "s3://another-bucket"}), aws.environ)
    with pytest.raises(AccessDenied, match="s3:PutObject on bucket another-bucket"):
        store.write("key", b"x")


def test_secrets_are_private(stores: dict[Provider, LocalStore], tmp_path: Path) -> None:
    environ = environ_for_all(stores.values(), tmp_path)
    files = [Path(environ["AWS_SHARED_CREDENTIALS_FILE"])]
    files += [Path(stores[one].environ["AWS_SHARED_CREDENTIALS_FILE"]) for one in (Provider.AWS, Provider.ONPREM)]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_processes_belong_to_the_run(tmp_path: Path) -> None:
    run = Run.new(tmp_path)
    site = site_of(Provider.ONPREM)
    try:
        start_store(run, site, tmp_path / "store")
        assert find(run.id, f"store-{site.name}")
    finally:
        end(run.id)
    assert not find(run.id)


def test_a_declared_directory_is_another_one_here(tmp_path: Path) -> None:
    site = site_of(Provider.ONPREM)
    site = site.model_copy(update={"store": StoreSpec(url="file:///mnt/weights")})
    local = start_store(Run.new(tmp_path), site, tmp_path / "a store")
    open_store(local.spec, local.environ).write("key", b"x")
    assert (tmp_path / "a store" / "data" / "key").read_bytes() == b"x"
