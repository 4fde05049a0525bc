"""Whatever happens to those who copy, to the stores or to the bytes: no marker on a release that is not whole, no
unverified byte loaded, and nothing sent twice that a store keeps. Seeded: a failure can be had again."""

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from clusters.launch.stores import LocalStore
from clusters.spec import Provider
from clusters.storage import StoreSpec, Verify
from tests.e2e.waiting import wait_for
from tests.local_stores import running
from tests.weights.chaos.copier import DONE, Copier, Order
from tests.weights.chaos.proxy import Damage, damaging
from tests.weights.making import held, large, published
from tests.weights.releases import MODEL
from weights.copying.pace import Pace
from weights.errors import Corrupt, WeightsError
from weights.manifest import Manifest
from weights.node.cache import fetch
from weights.parallel import Lanes
from weights.releases.registry import has_release, release_prefix, unpublish
from weights.releases.repair import quarantine, verify_release
from weights.store import Store, open_store

PART = 5 * 2**20
"""The smallest that S3 takes, so that many of them are quick."""
FILES = {
    "config.json": b'{"layers": 2}',
    "model-1-of-2.safetensors": large(1, 5 * PART + 17),
    "model-2-of-2.safetensors": large(2, 3 * PART),
    "tokenizer.json": large(3, 200_000),
}
SHARE = 1 if os.environ.get("RAYFLEET_TEST_THOROUGH") else 3
"""All of it takes minutes: it is run before a release, a third of it every time."""
KILLS = {"directory": 60 // SHARE, Provider.AWS: 15 // SHARE, Provider.GCP: 30 // SHARE}
STORE_KILLS = {Provider.ONPREM: 6 // SHARE, Provider.GCP: 14 // SHARE}
ROUNDS = 2


pytestmark = [
    # Connections of boto3 are closed by whoever collects its clients.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weights.manifest.PART", PART)


@pytest.fixture
def home(tmp_path: Path) -> tuple[StoreSpec, Manifest]:
    (tmp_path / "home").mkdir()
    spec = StoreSpec(url=(tmp_path / "home").as_uri())
    parts = pytest.MonkeyPatch()
    parts.setattr("weights.manifest.PART", PART)
    manifest = published(open_store(spec), FILES)
    parts.undo()
    return spec, manifest


def order_of(home: tuple[StoreSpec, Manifest], site: LocalStore, scratch: Path) -> Order:
    spec, manifest = home
    return Order(
        home=spec,
        site=site.spec,
        environ=dict(site.environ),
        model=MODEL,
        release=manifest.release,
        part=PART,
        journal=scratch / "journal",
        log=scratch / "sent",
    )


@contextmanager
def site_of(kind: str, scratch: Path) -> Iterator[LocalStore]:
    if kind == "directory":
        (scratch / "site").mkdir()
        yield LocalStore("site", StoreSpec(url=(scratch / "site").as_uri()), {})
        return
    with running(Provider(kind), directory=scratch / "store") as stores:
        yield stores[Provider(kind)]


def whole_or_absent(store: Store, manifest: Manifest) -> bool:
    """Whether the release is there; if so, every byte of it is right."""
    if not has_release(store, MODEL, manifest.release):
        return False
    assert held(store, manifest) == FILES
    return True


def forget(store: Store, manifest: Manifest) -> None:
    unpublish(store, MODEL, manifest.release)
    for item in list(store.objects("")):
        store.delete(item.key)
    for unfinished in list(store.unfinished("")):
        store.abort(unfinished)


def landed(store: Store, order: Order, manifest: Manifest) -> set[tuple[str, int]]:
    """Parts of uploads under way that the store keeps."""
    sizes = {release_prefix(MODEL, manifest.release) + file.path: file.size for file in manifest.files}
    found = list(store.unfinished(""))
    return {
        (one.key, number)
        for one in found
        if one.key in sizes
        for number in store.upload(one.key, sizes[one.key], one.token).landed()
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KILLS)
def test_whoever_copies_may_be_killed_at_any_moment(
    kind: str, home: tuple[StoreSpec, Manifest], tmp_path: Path
) -> None:
    rng = random.Random(f"kills of {kind}")
    _, manifest = home
    with site_of(kind, tmp_path) as site:
        store = open_store(site.spec, site.environ)
        order = order_of(home, site, tmp_path)
        for _ in range(2):  # of which the first one waits for all to be imported
            began = time.monotonic()
            assert Copier(order).wait() == DONE
            usual_s = time.monotonic() - began
            forget(store, manifest)
        kills = 0
        while kills < KILLS[kind]:
            before = landed(store, order, manifest)
            order.log.unlink(missing_ok=True)
            copier = Copier(order)
            time.sleep(rng.uniform(0, usual_s))
            kills += copier.kill()
            again = before & set(order.sent())
            assert not again, f"sent though the store had them: {again}"
            if whole_or_absent(store, manifest):
                forget(store, manifest)
        assert Copier(order).wait() == DONE
        assert whole_or_absent(store, manifest)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("provider", STORE_KILLS)
def test_a_store_may_be_killed_at_any_moment(
    provider: Provider, home: tuple[StoreSpec, Manifest], tmp_path: Path
) -> None:
    rng = random.Random(f"kills of the store of {provider}")
    _, manifest = home
    with site_of(provider, tmp_path) as site:
        order = replace(order_of(home, site, tmp_path), patience_s=60)
        server = Server(site)
        for _ in range(STORE_KILLS[provider]):
            copier = Copier(order)
            time.sleep(rng.uniform(0, 1.5))
            server.kill()
            time.sleep(rng.uniform(0, 0.3))
            server.start()
            assert copier.wait() == DONE
            store = open_store(site.spec, site.environ)
            assert whole_or_absent(store, manifest)
            forget(store, manifest)


class Server:
    """The process of a store on this machine, that comes back with the data it has on its disk."""

    def __init__(self, site: LocalStore) -> None:
        assert site.spec.endpoint
        self._port = int(site.spec.endpoint.rpartition(":")[2])
        process = self._process()
        assert process is not None
        self._argv, self._environ = process.cmdline(), process.environ()

    def kill(self) -> None:
        process = self._process()
        assert process is not None
        process.kill()
        process.wait(10)

    def start(self) -> None:
        """As nobody's child, with the marks of its run in the environment, so that it ends with the others."""
        subprocess.run(["setsid", "--fork", *self._argv], env=self._environ, check=True)
        assert wait_for(lambda: self._process() is not None, 30)

    def _process(self) -> psutil.Process | None:
        return next((one for one in psutil.process_iter() if _listens(one, self._port)), None)


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        found = process.net_connections("tcp")
    except psutil.Error:
        return False
    return any(one.laddr.port == port and one.status == psutil.CONN_LISTEN for one in found)


DAMAGES: dict[str, Callable[[], Damage]] = {
    "bits flip": lambda: Damage(flip=0.005),
    "connections drop": lambda: Damage(drop=0.005),
    "answers overtake": lambda: Damage(delay=0.1),
    "all of it": lambda: Damage(flip=0.001, drop=0.001, delay=0.05),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_damaged_on_its_way_never_becomes_a_release(
    kind: str, home: tuple[StoreSpec, Manifest], tmp_path: Path
) -> None:
    _, manifest = home
    damage = DAMAGES[kind]()
    with site_of(Provider.ONPREM, tmp_path) as site:
        assert site.spec.endpoint
        with damaging(site.spec.endpoint, damage) as endpoint:
            through = replace(site, spec=site.spec.model_copy(update={"endpoint": endpoint}))
            order = replace(order_of(home, through, tmp_path), patience_s=300)
            for _ in range(ROUNDS):
                assert Copier(order).wait(300) == DONE
                store = open_store(site.spec, site.environ)
                assert whole_or_absent(store, manifest)
                node = _fetched(open_store(through.spec, site.environ), manifest, tmp_path / "node")
                assert {path.name: path.read_bytes() for path in node.iterdir() if path.name in FILES} == FILES
                for path in sorted(node.rglob("*"), reverse=True):
                    path.unlink()
                node.rmdir()
                forget(store, manifest)
    assert damage.flipped + damage.dropped + damage.delayed > 0


def _fetched(store: Store, manifest: Manifest, cache: Path) -> Path:
    """As an engine's node does it: a fetch that fails is begun again."""
    for _ in range(20):
        try:
            return fetch(store, MODEL, manifest.release, cache, site="site", parallel_parts=4, cache_bytes=None)
        except WeightsError:
            continue
    raise AssertionError("it was never fetched")


@pytest.mark.parametrize("kind", ["directory", Provider.AWS, Provider.GCP, Provider.ONPREM])
def test_two_at_once_do_no_harm(kind: str, home: tuple[StoreSpec, Manifest], tmp_path: Path) -> None:
    _, manifest = home
    with site_of(kind, tmp_path) as site:
        order = replace(order_of(home, site, tmp_path), patience_s=60)
        orders = [
            replace(order, owner=name, journal=tmp_path / f"{name} journal", log=tmp_path / f"{name} sent")
            for name in ("one", "other")
        ]
        copiers = [Copier(one) for one in orders]
        assert [copier.wait() for copier in copiers] == [DONE, DONE]
        store = open_store(site.spec, site.environ)
        assert whole_or_absent(store, manifest)
        if store.conditional:
            sent = [part for one in orders for part in one.sent()]
            assert len(sent) == len(set(sent)), "the lease kept one of them away"


def test_bytes_that_rot_are_found_put_aside_and_brought_again(home: tuple[StoreSpec, Manifest], tmp_path: Path) -> None:
    _, manifest = home
    rng = random.Random("rot")
    with site_of(Provider.ONPREM, tmp_path) as site:
        order = order_of(home, site, tmp_path)
        assert Copier(order).wait() == DONE
        store = open_store(site.spec, site.environ)
        for number in range(5):
            victim = rng.choice(manifest.files)
            path = next((tmp_path / "store").rglob(victim.path))
            _flip(path, rng)
            with pytest.raises(Corrupt, match=victim.path):
                fetch(
                    store,
                    MODEL,
                    manifest.release,
                    tmp_path / f"node-{number}",
                    site="s",
                    parallel_parts=4,
                    cache_bytes=None,
                )
            with Lanes(4) as lanes:
                wrong = verify_release(store, manifest, Verify.FULL, lanes, Pace("site"), lambda _: None)
            assert [error.file for error in wrong] == [victim.path]
            quarantine(store, manifest, wrong, time.time())
            assert not has_release(store, MODEL, manifest.release)
            order.log.unlink(missing_ok=True)
            assert Copier(order).wait() == DONE
            assert {key.rpartition("/")[2] for key, _ in order.sent()} <= {victim.path}
            assert whole_or_absent(store, manifest)
        assert list(store.objects("quarantine/"))


def _flip(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        at = rng.randrange(path.stat().st_size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def test_a_full_disk_is_said_and_what_landed_is_kept(home: tuple[StoreSpec, Manifest], tmp_path: Path) -> None:
    _, manifest = home
    with _small_disk(tmp_path / "site", 30) as path:
        site = LocalStore("site", StoreSpec(url=path.as_uri()), {})
        order = order_of(home, site, tmp_path)
        assert Copier(order).wait() != DONE
        store = open_store(site.spec)
        assert not whole_or_absent(store, manifest)
        subprocess.run(["mount", "-o", "remount,size=100m", str(path)], check=True)
        assert Copier(order).wait() == DONE
        assert whole_or_absent(store, manifest)


@contextmanager
def _small_disk(path: Path, mib: int) -> Iterator[Path]:
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(path)], capture_output=True)
    if made.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
