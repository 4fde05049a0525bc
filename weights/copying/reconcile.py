"""Keeps what one site's store holds in agreement with what the site should serve. A service calls `look`."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from clusters.fields import Name, ReleaseId, Spec
from clusters.spec import Provider
from clusters.state import ReleasePhase, ReleaseState
from clusters.storage import StoreSpec, Verify, WeightsSpec
from weights.copying.deliver import Terms
from weights.copying.journal import Journal
from weights.copying.pace import Pace
from weights.copying.plan import SitePlan, plan
from weights.copying.replicate import Ask, Held, Survey, replicate, survey
from weights.errors import Corrupt, OverBudget, StoreError, WeightsError
from weights.parallel import Lanes
from weights.releases.aliases import aliases
from weights.releases.registry import MODELS, has_release, load_manifest, replicate_command, unpublish
from weights.releases.repair import quarantine, verify_release
from weights.store import Store

PATIENCE_S = 900.0
"""How long a site waits for a cheaper source that is itself about to receive the release."""
SWEEP_INTERVAL_S = 3600.0
ORPHANED_AFTER_S = 7 * 86400.0
FIRST_PAUSE_S = 30.0
MAX_PAUSE_S = 600.0


class SourceSpec(Spec):
    """A site, as far as copying from its store matters; a `prices.Place`."""

    name: Name
    provider: Provider
    region: str
    egress_price: float
    store: StoreSpec


class WantSpec(Spec):
    """A model that this and other sites have placements of, and the release that they are pinned to."""

    model: Name
    release: ReleaseId
    sites: tuple[Name, ...]


@dataclass
class Counts:
    """What became of it since the start, for metrics."""

    copied_bytes: int = 0
    egress_usd: float = 0.0
    corrupt_files: int = 0
    failures: int = 0


@dataclass(frozen=True)
class Setting:
    """What a reconciler works with. `price` is in USD per GB between two sites; `journal` knows begun uploads."""

    site: str
    wants: Sequence[WantSpec]
    sites: Sequence[str]
    """Whose stores may be read, the home first, this one included."""
    weights: WeightsSpec
    opened: Callable[[str], Store]
    price: Callable[[str, str], float]
    journal: Journal
    owner: str


class Reconciler:
    """Of one site. `look` runs in one thread; `states`, `suspect` and `counts` may be asked from others."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._aliased: dict[str, tuple[str, ...]] = {}
        self._states: dict[Release, ReleaseState] = {}
        self._pauses: dict[Release, _Pause] = {}
        self._waiting_since: dict[Release, float] = {}
        self._suspects: set[Release] = set()
        self._progress = _Shares(self._share)
        self._swept_at = 0.0
        self._lock = threading.Lock()
        self.counts = Counts()

    def states(self) -> tuple[ReleaseState, ...]:
        with self._lock:
            return tuple(self._states.values())

    def suspect(self, model: str, release: str) -> None:
        """Somebody read wrong bytes of it: it will be verified, and mended."""
        with self._lock:
            self._suspects.add((model, release))
            self._pauses.pop((model, release), None)

    def look(self, now: float) -> None:
        """Brings the store nearer to what it should hold, as far as that can be done now (seconds since the epoch)."""
        wanted = tuple(self._wanted())
        if now - self._swept_at > SWEEP_INTERVAL_S:
            self._swept_at = now
            self._sweep(now - ORPHANED_AFTER_S)
        with self._lock:
            kept = {(want.model, want.release) for want in wanted}
            self._states = {key: state for key, state in self._states.items() if key in kept}
            self._suspects &= kept
            self._pauses = {key: pause for key, pause in self._pauses.items() if key in kept}
        self._waiting_since = {key: since for key, since in self._waiting_since.items() if key in kept}
        for want in wanted:
            key = want.model, want.release
            pause = self._pauses.get(key)
            if pause is None or pause.until <= now:
                self._try(want, now)

    def _wanted(self) -> Iterator[WantSpec]:
        """Pinned releases, then those that an alias names: so they are everywhere before anyone pins them."""
        setting = self._setting
        for want in setting.wants:
            yield want
            try:
                home = setting.opened(setting.sites[0])
                named = [alias.release for alias in aliases(home, want.model)]
                self._aliased[want.model] = tuple(dict.fromkeys(named))
            except WeightsError:
                pass  # what they were is as good as it gets while home is away
            for release in self._aliased.get(want.model, ()):
                if release != want.release:
                    yield want.model_copy(update={"release": release})

    def _try(self, want: WantSpec, now: float) -> None:
        key = want.model, want.release
        try:
            message = self._reconcile(want, now)
        except WeightsError as error:
            self.counts.failures += 1
            pause = self._pauses.get(key)
            length = min(MAX_PAUSE_S, pause.length * 2) if pause else FIRST_PAUSE_S
            self._pauses[key] = _Pause(now + length, length)
            self._tell(key, ReleasePhase.FAILED, str(error))
        else:
            self._pauses.pop(key, None)
            self._tell(key, ReleasePhase.ABSENT if message else ReleasePhase.STORED, message)

    def _reconcile(self, want: WantSpec, now: float) -> str:
        """What it waits for; empty when the store has the release."""
        setting, key = self._setting, (want.model, want.release)
        store = setting.opened(setting.site)
        with self._lock:
            suspect = key in self._suspects
        if suspect:
            self._verify(store, want, now)
        if has_release(store, want.model, want.release):
            return ""
        self._tell(key, ReleasePhase.COPYING)
        seen = survey(want.model, want.release, self._asked(), setting.opened)
        if setting.site in seen.failed:
            raise seen.failed[setting.site]
        mine = self._plan(want, seen)
        if mine.source is not None and mine.source not in seen.holders:
            if now - self._waiting_since.setdefault(key, now) < PATIENCE_S:
                return f"waits for {mine.source} to have it"
            mine = self._plan(want.model_copy(update={"sites": (setting.site,)}), seen)
        self._waiting_since.pop(key, None)
        return self._copy(seen, mine)

    def _plan(self, want: WantSpec, seen: Survey) -> SitePlan:
        setting = self._setting
        named = dict.fromkeys((*want.sites, setting.site))
        wanting = [seen.inventories[site] for site in named if site in seen.inventories]
        plans = plan(seen.manifest, wanting, seen.holders, setting.price, bytes_per_s(setting.weights))
        mine = next(one for one in plans if one.site == setting.site)
        if mine.problem:
            url = setting.opened(setting.site).url
            raise StoreError(url, f"take release {want.release} of {want.model}", mine.problem)
        if mine.usd > setting.weights.budget_usd:
            raise OverBudget(
                f"copying {want.model} {want.release} from {mine.source} costs {mine.usd:.2f} USD of egress, more than "
                f"weights.budget_usd ({setting.weights.budget_usd:g}); run: "
                f"{replicate_command(want.model, setting.site, want.release)} --yes"
            )
        return mine

    def _copy(self, seen: Survey, mine: SitePlan) -> str:
        setting = self._setting
        ask = Ask(setting.owner, bytes_per_s(setting.weights))
        (replica,) = replicate(seen, [mine], setting.opened, self._terms, setting.price, ask)
        if isinstance(replica.outcome, WeightsError):
            raise replica.outcome
        if isinstance(replica.outcome, Held):
            return f"{replica.outcome.owner} copies it"
        self.counts.copied_bytes += replica.outcome.size
        self.counts.egress_usd += mine.usd
        return ""

    def _verify(self, store: Store, want: WantSpec, now: float) -> None:
        setting, key = self._setting, (want.model, want.release)
        try:
            manifest = load_manifest(store, want.model, want.release, replicate_command(want.model, setting.site))
            with self._terms(setting.site) as terms:
                wrong = verify_release(store, manifest, Verify.FULL, terms.lanes, terms.pace, lambda _: None)
            if wrong:
                quarantine(store, manifest, wrong, now)
        except Corrupt as error:  # the manifest itself
            unpublish(store, want.model, want.release)
            wrong = (error,)
        self.counts.corrupt_files += len(wrong)
        with self._lock:
            self._suspects.discard(key)

    def _sweep(self, before: float) -> None:
        """Forgets uploads that nobody goes on with: stores keep their parts, and clouds ask for money."""
        journal = self._setting.journal
        journal.sweep(before)
        try:
            store = self._setting.opened(self._setting.site)
            for orphan in list(store.unfinished(MODELS)):
                # Our own is known, however old the store says it is.
                if orphan.begun < before and journal.token(store.url, orphan.key) != orphan.token:
                    store.abort(orphan)
        except WeightsError:
            pass  # it is there at the next sweep

    def _asked(self) -> list[str]:
        return list(dict.fromkeys((*self._setting.sites, self._setting.site)))

    @contextmanager
    def _terms(self, site: str) -> Iterator[Terms]:
        with Lanes(self._setting.weights.parallel_parts) as lanes:
            yield Terms(lanes, Pace(site), self._setting.journal, self._setting.weights.verify, self._progress)

    def _tell(self, key: "Release", phase: ReleasePhase, message: str = "") -> None:
        model, release = key
        with self._lock:
            share = float(phase is ReleasePhase.STORED)
            self._states[key] = ReleaseState(model=model, release=release, phase=phase, share=share, message=message)

    def _share(self, share: float) -> None:
        with self._lock:
            for key, state in self._states.items():
                if state.phase is ReleasePhase.COPYING:
                    self._states[key] = state.model_copy(update={"share": share})


Release = tuple[str, str]


@dataclass(frozen=True)
class _Pause:
    until: float
    length: float


class _Shares:
    """Progress of the one copy that is under way, as a share."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._size = self._done = 0
        self._lock = threading.Lock()

    def begin(self, site: str, size: int) -> None:
        with self._lock:
            self._size, self._done = size, 0

    def advance(self, site: str, size: int) -> None:
        with self._lock:
            self._done += size
            share = min(1.0, max(0.0, self._done / self._size)) if self._size else 1.0
        self._tell(share)


def bytes_per_s(weights: WeightsSpec) -> float | None:
    """What `bandwidth_mbps` allows."""
    return weights.bandwidth_mbps * 1e6 / 8 if weights.bandwidth_mbps else None
