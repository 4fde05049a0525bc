"""`python -m bench.autoscaling`: what each policy costs at equal service; then tables, goals and one line of JSON."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoscaling.simulate.availability import Availability, read_availability
from autoscaling.simulate.errors import BadTrace
from autoscaling.simulate.traces import Request, read_trace
from autoscaling.simulate.workload import daily, for_model, scaled
from bench.autoscaling.contenders import CONTENDERS, FIXED, OURS, RAY, contend, limits, ray_as_it_comes
from bench.autoscaling.fleets import MODEL, USD_PER_HOUR
from bench.autoscaling.goals import goals
from bench.autoscaling.oracle import NAME as ORACLE
from bench.autoscaling.oracle import oracle
from bench.autoscaling.report import print_runs
from bench.autoscaling.spot import spot_runs
from bench.autoscaling.stage import Run, Stage, seconds_of_three_sites
from bench.report import conclude

SYNTHETIC_S, SYNTHETIC_RATE, SYNTHETIC_SWING = 3600.0, 5.5, 0.5
SPOT_RESERVE = 0.9
"""Of the requests per replica that are right without interruptions."""


def main() -> int:
    args = _arguments()
    try:
        requests = _requests(args)
        zones = {path.stem.replace("_", "-"): _zone(path) for path in args.spot}
    except BadTrace as error:
        print(f"bench.autoscaling: {error}", file=sys.stderr)
        return 2
    stage = Stage(args.card, requests, args.ttft, args.attainment, args.start, args.initial)
    runs = _contend(stage, args.only, args.tries)
    spot: list[Run] = []
    if zones and OURS in runs:
        _say("spot")
        target = limits(runs[OURS][0].knob * SPOT_RESERVE, stage)
        spot = spot_runs(stage, target, zones, args.windows)
    print_runs(stage, runs, spot, str(args.trace or "a synthetic trace"))
    reached = goals(stage, runs, spot, seconds_of_three_sites(stage))
    everything = [run.report() for each in (*runs.values(), spot) for run in each]
    conclude("autoscaling", reached, everything, args.json)
    return int(args.strict and any(goal.missed for goal in reached))


def _contend(stage: Stage, names: Sequence[str], tries: int) -> dict[str, list[Run]]:
    runs = {}
    for name in names:
        _say(name)
        runs[name] = contend(name, stage)
    if RAY in runs:
        runs["ray-serve as it comes"] = [ray_as_it_comes(stage)]
    if FIXED in runs and runs[FIXED][0].attainment >= stage.attainment:
        _say(ORACLE)
        runs[ORACLE] = oracle(stage, int(runs[FIXED][0].knob), tries)
    return runs


def _say(name: str) -> None:
    print(f"{name}: running", file=sys.stderr)


def _requests(args: argparse.Namespace) -> tuple[Request, ...]:
    """Raises BadTrace."""
    if args.synthetic:
        requests = daily(SYNTHETIC_S, SYNTHETIC_RATE, SYNTHETIC_SWING, period_s=SYNTHETIC_S, seed=1)
    elif args.trace is None:
        raise BadTrace(
            "needs --trace PATH, such as azure_llm_2023_conv.csv of Azure/AzurePublicDataset, or --synthetic for one "
            "that is made up"
        )
    else:
        requests = read_trace(args.trace)
    return for_model(scaled(requests, args.rate, seed=1), MODEL)


def _zone(path: Path) -> Availability:
    """Raises BadTrace."""
    return replace(read_availability(path), drain_s=10.0)


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - CONTENDERS.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return names


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.autoscaling", description=__doc__)
    parser.add_argument("--trace", type=Path, help="Azure's CSV, Mooncake's JSONL or a request log")
    parser.add_argument("--synthetic", action="store_true", help="a made-up hour with the shape of a day instead")
    parser.add_argument(
        "--spot", type=Path, nargs="+", default=[], help="availability of spot zones, SkyPilot's format"
    )
    parser.add_argument("--windows", type=int, default=6, help="hours of these that the trace is replayed in")
    parser.add_argument("--rate", type=float, default=1.0, help="times the trace's requests per second")
    parser.add_argument("--card", choices=list(USD_PER_HOUR), default="L4", help="that an 8B model is simulated on")
    parser.add_argument("--ttft", type=float, default=3.0, help="target of the time to the first token, seconds")
    parser.add_argument("--attainment", type=float, default=0.99, help="share of requests within it")
    parser.add_argument("--start", type=float, default=120.0, help="seconds until a new replica answers")
    parser.add_argument("--initial", type=int, default=6, help="replicas that answer at the start")
    parser.add_argument("--only", type=_names, default=list(CONTENDERS), help=f"some of {','.join(CONTENDERS)}")
    parser.add_argument("--tries", type=int, default=24, help="schedules that the oracle may play")
    parser.add_argument("--json", type=Path, help="file for the goals and every raw figure")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal is missed")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
