"""`python -m bench.scaling`: a step load on a real placement, up, down, to sleep and awake; then goals and one line of
JSON."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from bench.goals import Goal
from bench.report import conclude, print_table
from bench.scaling.measures import Figures, measure
from bench.scaling.stage import MOST, set_stage

DIRECTORY = Path(".cache/bench-scaling")
OURS_S = 2.0


def main() -> int:
    args = _arguments()
    with set_stage(DIRECTORY) as local:
        figures = measure(local, lambda now: print(now, file=sys.stderr))
    _print(figures)
    goals = _goals(figures)
    conclude("scaling", goals, asdict(figures), args.json)
    return int(args.strict and any(goal.missed for goal in goals))


def _goals(figures: Figures) -> list[Goal]:
    return [
        Goal("step_up_decided_s", figures.up_decision_s, OURS_S, at_most=True),
        Goal("waking_decided_s", figures.wake_decision_s, OURS_S, at_most=True),
        Goal("replicas_at_16_streams", figures.most_replicas, MOST, at_most=False),
        Goal("requests_lost", len(figures.failures), 0, at_most=True),
    ]


def _print(figures: Figures) -> None:
    shown = {
        "step up: decided after": figures.up_decision_s,
        "step up: one more replica answers after": figures.up_replica_s,
        "load gone: one replica left after": figures.down_s,
        "no load: asleep after": figures.asleep_s,
        "a request: waking decided after": figures.wake_decision_s,
        "a request: first token after": figures.wake_token_s,
    }
    rows = [(what, "-" if seconds is None else f"{seconds:.2f}") for what, seconds in shown.items()]
    print_table("A real placement of 0 to 3 replicas", ("seconds",), rows)
    print(f"{figures.answers} streams answered, {len(figures.failures)} lost")
    for line in (*figures.decisions, *figures.failures[:10]):
        print(f"  {line}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.scaling", description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the goals and every raw figure")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal is missed")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
