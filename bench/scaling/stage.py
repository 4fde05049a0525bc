"""One site with one placement that may sleep, and the ingress: real Ray clusters, and real vLLM on the CPU."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from clusters.launch.local import LocalFleet, tear_down
from clusters.launch.processes import free_port
from serve_app.cli.local import bring_up

ROOT = Path(__file__).parents[2]
SITE = "onprem-zurich"
MODEL = "demo-chat"
MOST = 3
SCALING: dict[str, Any] = {
    "min_replicas": 0,
    "max_replicas": MOST,
    "target_queue_depth": 4,
    "panic_window_s": 1.5,
    "window_s": 10,
    "scale_down_delay_s": 30,
    "scale_to_zero_delay_s": 30,
    "start_up_s": 30,
}
"""Defaults but for a short look at bursts, and for delays that would take this benchmark an hour."""


@contextmanager
def set_stage(directory: Path) -> Iterator[LocalFleet]:
    """All of it is gone afterwards. Raises LaunchError."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    fleet = directory / "fleet.yaml"
    fleet.write_text(yaml.safe_dump(_fleet(), sort_keys=False))
    local = bring_up(fleet, directory / "run", free_port(), Console(stderr=True))
    try:
        yield local
    finally:
        tear_down(local)
        shutil.rmtree(directory, ignore_errors=True)


def decisions(local: LocalFleet) -> list[tuple[float, str]]:
    """What the autoscaler said it changed: seconds since the epoch, and its words."""
    found = []
    for log in Path(local.heads[SITE].temp_dir).glob("session_latest/logs/serve/controller_*.log"):
        for line in log.read_text(errors="replace").splitlines():
            stamp, marker, words = line.partition(" -- rayfleet scales ")
            if marker:
                found.append((_seconds(stamp), words))
    return sorted(found)


def _seconds(stamp: str) -> float:
    """Of a line like `INFO 2026-11-21 21:28:19,670 controller 30876`, in the machine's own time zone."""
    _, day, time, *_ = stamp.split()
    return datetime.strptime(f"{day} {time}", "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()


def _fleet() -> dict[str, Any]:
    """The demo's, with all that this needs and nothing else."""
    declared: dict[str, Any] = yaml.safe_load((ROOT / "fleet.yaml").read_text())
    placement = next(each for each in declared["placements"] if (each["site"], each["model"]) == (SITE, MODEL))
    model = next(each for each in declared["models"] if each["name"] == MODEL)
    return {
        **declared,
        "sites": [site for site in declared["sites"] if site["name"] == SITE],
        "models": [{**model, "source": os.fspath(ROOT / model["source"])}],
        "placements": [{**placement, "gpus": 0.25, "autoscaling": SCALING}],
    }
