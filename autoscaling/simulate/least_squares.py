"""Least squares for a few coefficients, none of which may be negative."""

from collections.abc import Sequence

SMALLEST = 1e-12
"""Below that, a pivot says nothing about its coefficient."""


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
