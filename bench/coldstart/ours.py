"""rayfleet: a placement that sleeps is woken as an ingress wakes it, with its weights in the site's store only."""

import json
import shutil
import time
import urllib.request
from pathlib import Path
from typing import Any

from bench.coldstart.asking import Asked, NoAnswer, Target, ask_until_answered, steady_s
from bench.coldstart.figures import Start, own_words
from bench.coldstart.stage import MODEL, START_TIMEOUT_S, Stage
from serve_app.start_up import StartUp, from_log

NAME = "rayfleet"
LOOK_S = 0.25
"""An ingress looks once a second: its part is not what is measured."""
SLEEP_TIMEOUT_S = 120


def start(stage: Stage) -> Start:
    """Raises NoAnswer."""
    shutil.rmtree(stage.node_cache, ignore_errors=True)
    target = Target(f"{stage.site_url}/models/{MODEL}", MODEL, stage.token)
    wanted_at = time.time()
    _await(stage, "ready", held=1, timeout_s=START_TIMEOUT_S)
    first = ask_until_answered(target, START_TIMEOUT_S)
    steady = steady_s(target)
    phases = _phases(wanted_at, _start_up(stage, wanted_at), first)
    return Start(first.first_token_at - wanted_at, first.seconds, steady, phases, own_words(_logs(stage, wanted_at)))


def await_sleep(stage: Stage) -> None:
    """Until nothing of ours runs but Ray and the site's agent. Raises NoAnswer."""
    _await(stage, "asleep", held=0, timeout_s=SLEEP_TIMEOUT_S)


def _phases(wanted_at: float, told: StartUp, first: Asked) -> dict[str, float]:
    """Ray may have started the process before anybody wanted it: the time until then is nobody's."""
    early = max(0.0, wanted_at - told.began_at)
    return {
        "actor start": max(0.0, told.began_at - wanted_at),
        **told.phases,
        "imports": told.phases["imports"] - early,
        "route": first.sent_at - told.ended_at,
        "first request": first.seconds,
    }


def _start_up(stage: Stage, since: float) -> StartUp:
    """What the replica that started since then says."""
    lines = (line for log in _logs(stage, since) for line in log.read_text(errors="replace").splitlines())
    told = [start_up for line in lines if (start_up := from_log(line)) and start_up.ended_at > since]
    if not told:
        raise NoAnswer(f"no replica in {stage.ray_logs} says how it started")
    return told[-1]


def _logs(stage: Stage, since: float) -> list[Path]:
    """Those that were written since then, the newest last."""
    logs = [path for path in stage.ray_logs.rglob("*") if path.is_file() and path.stat().st_mtime > since]
    return sorted(logs, key=lambda path: path.stat().st_mtime)


def _await(stage: Stage, readiness: str, held: int, timeout_s: float) -> None:
    """As an ingress looks: what it holds, it says each time. Raises NoAnswer."""
    deadline = time.monotonic() + timeout_s
    while (state := _tell(stage, held)["placements"][0])["readiness"] != readiness:
        if time.monotonic() > deadline:
            raise NoAnswer(f"{MODEL} is not {readiness} after {timeout_s:.0f} s: {state}")
        time.sleep(LOOK_S)


def _tell(stage: Stage, held: int) -> dict[str, Any]:
    """The site's state."""
    body = json.dumps({"ingress": NAME, "held": {MODEL: held}}).encode()
    headers = {"authorization": f"Bearer {stage.token}", "content-type": "application/json"}
    request = urllib.request.Request(f"{stage.site_url}/fleet/state", body, headers)  # noqa: S310 - our own
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        state: dict[str, Any] = json.load(answer)
        return state
