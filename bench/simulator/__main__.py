"""`python -m bench.simulator`: calibrates on a real engine, replays requests there and in the simulator."""

import argparse
import asyncio
import os
import random
import sys
import tempfile
from pathlib import Path

from autoscaling.simulate.errors import SimulateError
from autoscaling.simulate.traces import read_trace
from bench.report import conclude
from bench.router.machine import Cores
from bench.simulator.course import Course
from bench.simulator.engine import MODEL, engine
from bench.simulator.report import goals, print_calibrations, print_comparison
from bench.simulator.workload import bursts, capped
from clusters.launch.processes import LaunchError
from serve_app.cli.cache_config import read_cache_config
from serve_app.cli.endpoint import FleetRefused, FleetUnreachable
from serve_app.cli.probe import Probe

SYNTHETIC = 1000
"""Requests: more than are replayed."""


def main() -> int:
    args = _arguments()
    try:
        requests = capped(read_trace(args.trace) if args.trace else bursts(SYNTHETIC, random.Random(args.seed)))
        cores = Cores.split()
        with tempfile.TemporaryDirectory() as directory, engine(Path(directory), cores) as running:
            os.sched_setaffinity(0, {cores.load})
            cache = read_cache_config(running.metrics)
            probe = Probe(running.endpoint, MODEL, "bench")
            course = Course(running, probe, cache, requests, args.seconds, args.repeats, args.seed)
            calibrations, replays = asyncio.run(course.run())
        fits = [course.fit(each) for each in calibrations]
        both = course.fit(*calibrations)
    except (SimulateError, LaunchError, FleetUnreachable, FleetRefused, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    compared = course.compare(both.model, replays)
    print_calibrations(fits, [course.capacity(each.model) for each in fits], both)
    print_comparison(compared)
    reached = goals(compared)
    conclude(
        "simulator", reached, {"model": both.model.model_dump(), "loads": [x.report() for x in compared]}, args.json
    )
    return int(args.strict and any(goal.missed for goal in reached))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.simulator", description=__doc__)
    parser.add_argument("--trace", type=Path, help="Azure's CSV, Mooncake's JSONL or a request log; unset: made up")
    parser.add_argument("--seconds", type=float, default=7, help="of each replay")
    parser.add_argument("--repeats", type=int, default=2, help="of each load, with other words")
    parser.add_argument("--seed", type=int, default=0, help="of what is made up")
    parser.add_argument("--json", type=Path, help="file for the goals and every raw figure")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal is missed")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
