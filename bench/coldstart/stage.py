"""One site on this machine: a Ray node, an s3 store with the release, Serve with the site's own applications."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from clusters.launch import local as launch
from clusters.launch.local import LocalFleet
from clusters.launch.processes import free_port
from clusters.spec import FleetSpec, ModelSpec, PlacementSpec, Task
from serve_app.cli.replication import Replication
from weights.copying.pace import SILENT
from weights.push import push
from weights.sources.source import open_source

SITE = "here"
MODEL = "chat"
CPUS = 2
START_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Stage:
    local: LocalFleet
    source: Path
    """The release as a directory."""

    @property
    def directory(self) -> Path:
        return self.local.run.directory

    @property
    def model(self) -> ModelSpec:
        return self.local.fleet.model(MODEL)

    @property
    def placement(self) -> PlacementSpec:
        return self.local.fleet.placements[0]

    @property
    def site_url(self) -> str:
        return self.local.fleet.site(SITE).endpoint

    @property
    def token(self) -> str:
        return self.local.heads[SITE].environ[self.local.fleet.site(SITE).token_variable]

    @property
    def node_cache(self) -> Path:
        """Where the node keeps releases, and what engines compiled for them."""
        return self.directory / SITE / "cache"

    @property
    def ray_logs(self) -> Path:
        return self.local.heads[SITE].temp_dir / "session_latest" / "logs"


@contextmanager
def set_stage(directory: Path, source: Path) -> Iterator[Stage]:
    """All of it is gone afterwards. Raises LaunchError, WeightsError."""
    shutil.rmtree(directory, ignore_errors=True)
    local = launch.prepare(fleet(source), source, directory, free_port())
    try:
        stage = Stage(_with_release(local, source), source)
        launch.write(stage.local)
        launch.start_cluster(stage.local, SITE)
        launch.deploy(stage.local, SITE)
        launch.wait_running(stage.local, SITE, print)
        yield stage
    finally:
        launch.tear_down(local)
        shutil.rmtree(directory, ignore_errors=True)


def fleet(source: Path) -> FleetSpec:
    """A placement on CPUs that sleeps a second after its last request."""
    machines = {"head": "127.0.0.1", "hosts": ["127.0.0.1"]}
    pool = {"name": "cpus", "instance_type": "machine", "cpus": CPUS, "usd_per_hour": 1, "min_nodes": 1}
    site = {
        "name": SITE,
        "provider": "onprem",
        "region": "here",
        "jurisdiction": "us",
        "endpoint": "http://127.0.0.1",
        "store": {"url": "s3://weights", "endpoint": "http://127.0.0.1"},
        "machines": machines,
        "pools": [pool],
    }
    scaling = {"min_replicas": 0, "scale_to_zero_delay_s": 1, "scale_down_delay_s": 1, "window_s": 1}
    placement = {"model": MODEL, "site": SITE, "pool": "cpus", "gpus": 0, "autoscaling": scaling}
    model = {
        "name": MODEL,
        "source": str(source),
        "release": "0" * 12,
        "tasks": [Task.CHAT, Task.COMPLETIONS],
        "max_model_len": 1024,
    }
    return FleetSpec.model_validate(
        {
            "name": "coldstart",
            "sites": [site],
            "models": [model],
            "placements": [placement],
            "weights": {"home": SITE},
            "ingress": {"machines": {"head": "127.0.0.1"}},
        }
    )


def _with_release(local: LocalFleet, source: Path) -> LocalFleet:
    """Once the site's store has it."""
    work = Replication(local.fleet, os.environ | launch.environment(local), None)
    with work.terms(SITE, SILENT) as terms:
        pushed = push(MODEL, open_source(str(source), Path()), work.opened(SITE), SITE, datetime.now(UTC), terms)
    model = local.fleet.model(MODEL).model_copy(update={"release": pushed.manifest.release})
    return replace(local, fleet=local.fleet.model_copy(update={"models": (model,)}))
