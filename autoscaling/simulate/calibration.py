"""An engine model fitted to what a real placement did: the coefficients of its steps, by least squares."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from autoscaling.simulate.engine_model import EngineModel
from autoscaling.simulate.errors import CannotFit

SMALLEST = 1e-12
"""Below that, a pivot says nothing about its coefficient."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One answer, which ran beside so many others of its like. The prompt fitted one step."""

    batch: int
    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    tpot_s: float | None
    """Seconds per token after the first; None where there was no second one."""


@dataclass(frozen=True, slots=True)
class Fit:
    model: EngineModel
    ttft_error: float
    """Mean distance of the model from what was measured, as a share of it: of single requests' first tokens,"""
    tpot_error: float
    """and of steps."""


def fit(measured: Sequence[Measured], kv_tokens: int, source: str) -> Fit:
    """Single requests of several lengths tell prefill and overhead, batches of several sizes the decode steps. All
    errors count by their share, so that slow batches do not drown fast ones. Raises CannotFit."""
    single = [one for one in measured if one.batch == 1]
    steps = [(one, one.tpot_s) for one in measured if one.tpot_s is not None]
    if len({one.prompt_tokens for one in single}) < 2:
        raise CannotFit("needs single requests with prompts of two lengths or more")
    if len({one.batch for one, _ in steps}) < 2:
        raise CannotFit("needs batches of two sizes or more, with answers of two tokens or more")
    step_s, sequence_s, kv_token_s = least_squares(
        [(1.0, float(one.batch), one.batch * _context(one)) for one, _ in steps], [seconds for _, seconds in steps]
    )
    overhead_s, prefill_token_s = least_squares(
        [(1.0, float(one.prompt_tokens)) for one in single], [one.ttft_s for one in single]
    )
    if step_s <= 0:
        raise CannotFit("steps of small batches took no time: were their answers measured in a stream?")
    model = EngineModel(
        source=source,
        step_s=step_s,
        sequence_s=sequence_s,
        kv_token_s=kv_token_s,
        prefill_token_s=prefill_token_s,
        request_s=max(0.0, overhead_s - step_s),
        kv_tokens=kv_tokens,
    )
    return Fit(
        model,
        mean(abs(model.alone_s(one.prompt_tokens) / one.ttft_s - 1) for one in single),
        mean(abs(model.decode_s(one.batch, round(one.batch * _context(one))) / seconds - 1) for one, seconds in steps),
    )


def least_squares(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Coefficients of at least 0 with the least sum of squared relative errors. A coefficient that would be negative,
    or that the rows do not tell, is 0. Values must be above 0."""
    kept = list(range(len(rows[0])))
    weighted = [[cell / value for cell in row] for row, value in zip(rows, values, strict=True)]
    while kept:
        found = _solve([[row[n] for n in kept] for row in weighted])
        lowest = min(range(len(kept)), key=lambda n: found[n])
        if found[lowest] >= 0:
            return [found[kept.index(n)] if n in kept else 0.0 for n in range(len(rows[0]))]
        del kept[lowest]
    return [0.0] * len(rows[0])


def _solve(rows: Sequence[Sequence[float]]) -> list[float]:
    """Normal equations for targets of 1, by elimination. Columns are scaled first: tokens and seconds differ much."""
    size = len(rows[0])
    scale = [max(abs(row[n]) for row in rows) or 1.0 for n in range(size)]
    scaled = [[row[n] / scale[n] for n in range(size)] for row in rows]
    matrix = [[sum(row[i] * row[j] for row in scaled) for j in range(size)] for i in range(size)]
    right = [sum(row[i] for row in scaled) for i in range(size)]
    unknown = set()
    for i in range(size):
        if matrix[i][i] < SMALLEST:
            unknown.add(i)
            continue
        for j in range(size):
            if j != i:
                factor = matrix[j][i] / matrix[i][i]
                matrix[j] = [a - factor * b for a, b in zip(matrix[j], matrix[i], strict=True)]
                right[j] -= factor * right[i]
    return [0.0 if i in unknown else right[i] / matrix[i][i] / scale[i] for i in range(size)]


def _context(one: Measured) -> float:
    """Mean tokens of its context while it decoded."""
    return one.prompt_tokens + one.output_tokens / 2
