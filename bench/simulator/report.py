"""The figures as tables for people, and the goals that they meet."""

from collections.abc import Sequence

from autoscaling.simulate.calibration import FIRST_TOKEN, STEP, Fit
from bench.goals import Goal
from bench.report import Row, print_table
from bench.simulator.figures import Compared

LIMIT = 0.10
SECONDS = {"ttft_mean_s": "TTFT mean", "ttft_p50_s": "TTFT p50", "ttft_p95_s": "TTFT p95", "tpot_mean_s": "TPOT mean"}


def print_calibrations(fits: Sequence[Fit], capacities: Sequence[float], together: Fit) -> None:
    """`fits` are of each calibration by itself, with the requests per second that it promises."""
    rows = [
        (f"calibration {number}", f"{made.error(FIRST_TOKEN):.1%}", f"{made.error(STEP):.1%}", f"{capacity:.2f}")
        for number, (made, capacity) in enumerate(zip(fits, capacities, strict=True), 1)
    ]
    print_table("Mean residuals, and full load as modelled", ("first tokens", "steps", "requests/s"), rows)
    coefficients = together.model.model_dump(exclude={"version", "source", "kv_tokens"})
    print_table(
        "Coefficients of both together, µs",
        tuple(coefficients),
        [("", *(f"{1e6 * x:.3g}" for x in coefficients.values()))],
    )


def print_comparison(compared: Sequence[Compared]) -> None:
    """`noise` is the range of the mean TTFT over the engine's own repetitions."""
    print_table("Real / simulated, ms", tuple(SECONDS.values()), [_seconds(each) for each in compared])
    print_table(
        "Real / simulated",
        ("TTFT in engine ms", "tokens/s", "requests", "noise of TTFT", "cores of others"),
        [_rest(each) for each in compared],
    )


def goals(compared: Sequence[Compared]) -> list[Goal]:
    def worst(figure: str) -> float:
        return max(abs(each.error(figure)) for each in compared)

    return [
        Goal("worst_error_of_mean_ttft", worst("ttft_mean_s"), LIMIT, at_most=True),
        Goal("worst_error_of_throughput", worst("tokens_per_s"), LIMIT, at_most=True),
        Goal("worst_error_of_mean_tpot", worst("tpot_mean_s"), LIMIT, at_most=True, stretch=True),
    ]


def _seconds(each: Compared) -> Row:
    return (_name(each), *(_cell(each, figure, 1e3) for figure in SECONDS))


def _rest(each: Compared) -> Row:
    noise = f"{each.noise('ttft_mean_s'):.0%}"
    return (
        _name(each),
        _text(*each.inside(), 1e3),
        _cell(each, "tokens_per_s", 1),
        str(each.requests),
        noise,
        f"{each.others:.2f}",
    )


def _name(each: Compared) -> str:
    return f"{each.load}{', shared' if each.shared else ''}"


def _cell(each: Compared, figure: str, scale: float) -> str:
    return _text(*each.pair(figure), scale)


def _text(real: float, simulated: float, scale: float) -> str:
    return f"{scale * real:.1f} / {scale * simulated:.1f}  {simulated / real - 1:+.0%}"
