"""The site's replicator: one process that brings releases to the site's store, and from there to its nodes' disks."""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clusters.render import AGENT_APP
from clusters.state import ReleasePhase, ReleaseState
from clusters.storage import StoreSpec, WeightsSpec
from serve_app.metering.export import Export
from serve_app.metering.metrics import COPIED_BYTES, COPY_FAILURES, COPY_USD, CORRUPT_FILES, RELEASE_SHARE, WEIGHTS
from serve_app.metering.sums import Sums
from serve_app.ray_metrics import RayMetrics
from serve_app.site_args import ReplicatorAppArgs
from weights.copying.journal import Journal
from weights.copying.prices import usd_per_gb
from weights.copying.reconcile import Reconciler, Setting
from weights.errors import Corrupt, WeightsError
from weights.node.cache import fetch
from weights.node.pins import pin
from weights.releases.lease import own_name
from weights.store import open_store

logger = logging.getLogger("ray.serve")

REPORT_INTERVAL_S = 2.0
JOURNAL = ".uploads"
"""Below the node cache."""
CACHE_TIMEOUT_S = 6 * 3600.0

Releases = list[tuple[str, str]]
"""Model and release."""


class Replicator:
    """One replica per site. A thread reconciles the store; the event loop reports, and fills the caches of nodes."""

    def __init__(self, args: ReplicatorAppArgs):
        self._args = args
        self._sites = {site.name: site for site in args.sites}
        self._wants = [(want.model, want.release) for want in args.wants]
        self._reconciler = Reconciler(self._setting())
        self._nodes: Mapping[tuple[str, str], int] = {}
        self._sums = Sums(WEIGHTS)
        self._export = Export(self._sums, RayMetrics())
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._reconcile, daemon=True, name="reconciler")
        self._thread.start()
        self._tasks = [asyncio.create_task(self._report()), asyncio.create_task(self._keep_cached())]

    def check_health(self) -> None:
        ended = [task for task in self._tasks if task.done()]
        if ended or not self._thread.is_alive():
            raise RuntimeError("the replicator no longer works") from (ended[0].exception() if ended else None)

    async def suspect(self, model: str, release: str) -> None:
        """An engine's node read wrong bytes of it from the store."""
        self._reconciler.suspect(model, release)
        self._wake.set()

    def _setting(self) -> Setting:
        args = self._args
        return Setting(
            site=args.site,
            wants=args.wants,
            sites=tuple(self._sites),
            weights=args.weights,
            # Once per site: a client has connections, and knows what its store can do.
            opened=cache(lambda site: open_store(self._sites[site].store)),
            price=lambda source, target: usd_per_gb(self._sites[source], self._sites[target]),
            journal=Journal(Path(args.weights.cache_dir, JOURNAL)),
            owner=f"{args.site}-{own_name()}",
        )

    def _reconcile(self) -> None:
        while True:
            self._reconciler.look(time.time())
            self._wake.wait(self._args.weights.interval_s)
            self._wake.clear()

    async def _report(self) -> None:
        """To the agent, for ever. A lost report is not repeated: the next is on its way."""
        agent: Any = None
        while True:
            states = [self._with_nodes(state) for state in self._reconciler.states()]
            self._measure(states)
            try:
                if agent is None:
                    agent = await asyncio.to_thread(serve.get_app_handle, AGENT_APP)
                report = [state.model_dump(mode="json") for state in states]
                await asyncio.wait_for(agent.report_releases.remote(report), 5)
            except (RayError, serve.exceptions.RayServeException, TimeoutError):
                agent = None
            await asyncio.sleep(REPORT_INTERVAL_S)

    def _with_nodes(self, state: ReleaseState) -> ReleaseState:
        return state.model_copy(update={"nodes": self._nodes.get((state.model, state.release), 0)})

    def _measure(self, states: Iterable[ReleaseState]) -> None:
        counts = self._reconciler.counts
        for metric, value in (
            (COPIED_BYTES, counts.copied_bytes),
            (COPY_USD, counts.egress_usd),
            (CORRUPT_FILES, counts.corrupt_files),
            (COPY_FAILURES, counts.failures),
        ):
            self._sums.numbers(metric)[(self._args.site,)] = value
        for state in states:
            self._sums.numbers(RELEASE_SHARE)[state.model, state.release, self._args.site] = state.share
        self._export.flush()

    async def _keep_cached(self) -> None:
        """Every node of a model's pool has its stored releases before an engine asks, new nodes too. For ever."""
        tasks: dict[str, asyncio.Task[Releases]] = {}
        have: dict[str, Releases] = {}
        while True:
            stored = [state for state in self._reconciler.states() if state.phase is ReleasePhase.STORED]
            alive = {node["NodeID"]: node["Resources"] for node in await asyncio.to_thread(ray.nodes) if node["Alive"]}
            for node, resources in alive.items():
                task = tasks.get(node)
                if task is not None and task.done():
                    have[node] = task.result()
                wanted = [(one.model, one.release) for one in stored if self._args.pools.get(one.model) in resources]
                if wanted and (task is None or task.done()):
                    tasks[node] = asyncio.create_task(self._cache(node, wanted))
            tasks = {node: task for node, task in tasks.items() if node in alive}
            have = {node: releases for node, releases in have.items() if node in alive}
            self._nodes = Counter(release for releases in have.values() for release in releases)
            await asyncio.sleep(self._args.weights.interval_s)

    async def _cache(self, node: str, wanted: Releases) -> Releases:
        """Which of the releases the node has, after it was told to fetch them."""
        weights = self._args.weights
        store = self._sites[self._args.site].store
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        task = _cache_releases.options(scheduling_strategy=here).remote(
            wanted, self._wants, store.model_dump(mode="json"), weights.model_dump(mode="json"), self._args.site
        )
        try:
            have, corrupt = await asyncio.wait_for(asyncio.wrap_future(task.future()), CACHE_TIMEOUT_S)
            for release in corrupt:
                await self.suspect(*release)
            return list(have)
        except (RayError, TimeoutError) as error:
            logger.warning("node %s does not fetch what it should have on its disk: %s", node, error)
            return []


def cache_releases(
    wanted: Releases, kept: Releases, store: dict[str, Any], weights: dict[str, Any], site: str
) -> tuple[Releases, Releases]:
    """On a node: has it fetch what it lacks, and tells it what to keep. Returns what it has then, and what is corrupt
    in the store."""
    opened, spec = open_store(StoreSpec(**store)), WeightsSpec(**weights)
    keep = frozenset(f"{model}/{release}" for model, release in kept)
    try:
        pin(Path(spec.cache_dir), keep)
    except OSError as error:
        logger.warning("engines on this node are not told what to keep, and make no room: %s", error)
    have: Releases = []
    corrupt: Releases = []
    for model, release in wanted:
        try:
            fetch(
                opened,
                model,
                release,
                spec.cache_dir,
                site=site,
                parallel_parts=spec.parallel_parts,
                cache_bytes=spec.cache_bytes,
                keep=keep,
            )
            have.append((model, release))
        except WeightsError as error:
            logger.warning("%s %s is not on this node's disk: %s", model, release, error)
            if isinstance(error, Corrupt):
                corrupt.append((model, release))
    return have, corrupt


_cache_releases = ray.remote(num_cpus=0)(cache_releases)
