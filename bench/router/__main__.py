"""`python -m bench.router`: each contender in turn, alone on its core; then tables, goals and one line of JSON."""

import argparse
import gc
import importlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import uvloop

from bench.peers import NotInstalled
from bench.report import conclude
from bench.router.contenders import CONTENDERS, ENGINE
from bench.router.engine import HOST
from bench.router.figures import Figures
from bench.router.goals import goals
from bench.router.machine import Cores, allow_many_connections, on_core
from bench.router.measures import measure
from bench.router.probe import WrongAnswer, answers, check
from bench.router.report import print_figures
from bench.router.requests import Target
from bench.router.stage import Stage
from clusters.launch.processes import LaunchError, Run, clean_environment, end, free_port, spawn, wait_until

ROOT = Path(__file__).parents[2]
ENGINE_START_TIMEOUT_S = 30


def main() -> int:
    args = _arguments()
    cores = Cores.split()
    os.sched_setaffinity(0, {cores.load})
    allow_many_connections()
    # Both end the run in the same way, also when a shell started it in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    measured = _measure_all(args.only, cores, args.cache, args.seconds)
    reached = goals({one.name: one for one in measured}, _choose_us(cores))
    print_figures(measured)
    conclude("router", reached, [asdict(one) for one in measured], args.json)
    return int(args.strict and any(goal.missed for goal in reached))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.router", description=__doc__)
    parser.add_argument("--only", type=_names, default=list(CONTENDERS), help=f"some of {','.join(CONTENDERS)}")
    parser.add_argument(
        "--seconds", type=float, default=4, help="of each measurement (1,000 open streams: three times)"
    )
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench", help="where peers are installed")
    parser.add_argument("--json", type=Path, help="file for the goals and every raw figure")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal is missed")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - CONTENDERS.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return names


def _measure_all(names: Sequence[str], cores: Cores, cache: Path, seconds: float) -> list[Figures]:
    shutil.rmtree(cache / "run", ignore_errors=True)
    run = Run.new((cache / "run").resolve())
    run.directory.mkdir(parents=True)
    # Not below TMPDIR, which may be deep already.
    sockets = Path(tempfile.mkdtemp(prefix="rf-", dir="/tmp"))
    try:
        stage = Stage(run, cores, _start_engines(run), cache, sockets)
        return [figures for name in names if (figures := _measure_one(name, stage, seconds))]
    finally:
        # A second Ctrl-C must not keep us from ending what we started.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end(run.id)
        shutil.rmtree(sockets, ignore_errors=True)


def _start_engines(run: Run) -> tuple[int, int]:
    """Both engines, in one process. Raises LaunchError."""
    ports = free_port(HOST), free_port(HOST)
    argv = [sys.executable, "-m", "bench.router.engine", *map(str, ports)]
    process = spawn(run, ENGINE, argv, clean_environment(), cwd=ROOT)
    wait_until(run, ENGINE, lambda: all(answers(Target(port)) for port in ports), process, ENGINE_START_TIMEOUT_S)
    return ports


def _measure_one(name: str, stage: Stage, seconds: float) -> Figures | None:
    """None, and a line that says why, when the contender cannot be measured."""
    print(f"{name}: starting", file=sys.stderr)
    try:
        with CONTENDERS[name](stage) as running:
            check(running.target, stage.direct)
            print(f"{name}: measuring", file=sys.stderr)
            gc.collect()
            gc.disable()
            return uvloop.run(measure(name, running, stage.direct, seconds))
    except (LaunchError, NotInstalled, WrongAnswer, OSError) as error:
        print(f"{name}: skipped: {error}", file=sys.stderr)
        return None
    finally:
        gc.enable()


def _choose_us(cores: Cores) -> float | None:
    """Microseconds of CPU for one choice among 100 sites; None where nothing measures it."""
    try:
        choosing = importlib.import_module("bench.router.choosing")
    except ImportError:
        return None
    with on_core(cores.contender):
        return float(choosing.choose_100()) * 1e6


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
