"""`python -m bench.weights`: clients of one store in turn, round by round; then tables, goals and one line of JSON.

What moves lies on the disk of --cache, where five times --gib must be free.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.report import conclude
from bench.weights.contenders import NAMES, OURS
from bench.weights.figures import JOBS
from bench.weights.goals import goals
from bench.weights.measures import measure_all, push_home
from bench.weights.planning import measure_planning
from bench.weights.report import print_commands, print_figures, print_peaks, print_planning
from bench.weights.stage import set_stage

ROOT = Path(__file__).parents[2]
GIB = 2
"""Of a larger release memory is compared with one of this size."""


def main() -> int:
    args = _arguments()
    # Both end the run in the same way, also when a shell started it in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with set_stage(args.cache, args.gib) as stage:
        planning = measure_planning(stage)
        push_home(stage)
        figures = measure_all(stage, args.jobs, args.only, args.runs)
    sizes = [figures]
    if args.gib > GIB:
        with set_stage(args.cache, GIB) as stage:
            push_home(stage)
            sizes.insert(0, measure_all(stage, args.jobs, set(OURS) & set(args.only), runs=1))
    print_commands(figures)
    print_figures(figures)
    print_peaks(sizes)
    print_planning(planning)
    print(f"Again: make bench-weights ARGS={shlex.quote(shlex.join(sys.argv[1:]))}")
    reached = goals(figures, sizes)
    conclude("weights", reached, {"sizes": [asdict(one) for one in sizes], "planning": asdict(planning)}, args.json)
    return int(args.strict and any(goal.missed for goal in reached))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gib", type=int, default=GIB, help="size of the release (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each contender; medians count (default: %(default)s)")
    parser.add_argument("--only", type=_some_of(NAMES), default=NAMES, help=f"beside cp, some of {','.join(NAMES)}")
    parser.add_argument("--jobs", type=_some_of(JOBS), default=JOBS, help=f"some of {','.join(JOBS)}")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench", help="where peers are installed")
    parser.add_argument("--json", type=Path, help="file for the goals and every raw figure")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal is missed")
    return parser.parse_args()


def _some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
        return chosen

    return names


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
