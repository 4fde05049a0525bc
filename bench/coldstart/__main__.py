"""`python -m bench.coldstart`: plain vLLM and a sleeping placement of ours start in turn, run by run; then where the
time went, goals and one line of JSON."""

import argparse
import shlex
import signal
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

from bench.coldstart import ours, plain
from bench.coldstart.figures import Figures, Start
from bench.coldstart.report import goals, print_figures
from bench.coldstart.stage import set_stage
from bench.report import conclude

ROOT = Path(__file__).parents[2]
CONTENDERS = {plain.NAME: plain.start, ours.NAME: ours.start}


def main() -> int:
    args = _arguments()
    # Both end the run in the same way, also when a shell started it in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    starts: dict[str, list[Start]] = defaultdict(list)
    with set_stage(args.cache.resolve() / "coldstart-run", args.model.resolve()) as stage:
        for _ in range(args.runs):
            for name in args.only:
                ours.await_sleep(stage)
                starts[name].append(CONTENDERS[name](stage))
                print(f"{name}: {starts[name][-1]}")
        print(f"{plain.NAME} is {shlex.join(plain.command(stage, 8000))}\n")
    figures = Figures(dict(starts))
    print_figures(figures)
    print(f"Again: make bench-coldstart ARGS={shlex.quote(shlex.join(sys.argv[1:]))}")
    reached = goals(figures)
    conclude("coldstart", reached, asdict(figures), args.json)
    return int(args.strict and any(goal.missed for goal in reached))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.coldstart", description=__doc__)
    default = ROOT / "weights" / "demo" / "chat"
    parser.add_argument("--model", type=Path, default=default, help="a model's directory (default: the demo's)")
    parser.add_argument("--runs", type=int, default=3, help="of each; medians count (default: %(default)s)")
    parser.add_argument("--only", choices=CONTENDERS, action="append", help="one of them (default: both)")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench", help="where the run lies")
    parser.add_argument("--json", type=Path, help="file for the goals and every raw figure")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal is missed")
    args = parser.parse_args()
    args.only = args.only or list(CONTENDERS)
    return args


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
