"""A simulation as one HTML page: a table, and plots as inline SVG. It needs nothing from the network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from autoscaling.simulate.outcome import Outcome, Point, Summary, site_summaries, summary

WIDTH, HEIGHT, LEFT, BOTTOM = 760, 200, 44, 24
TIME_STEPS = (5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)
MAX_TIMES = 8
COLOURS = ("c0", "c1", "c2", "c3")
"""Of the style sheet; more placements use them again."""

STYLE = """
:root{color-scheme:light dark;--ink:#1c2026;--soft:#68707c;--line:#dfe3e8;--paper:#fff;
--c0:#2563c9;--c1:#c2571a;--c2:#1d8a5b;--c3:#8b49b8}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#98a1ad;--line:#333a44;--paper:#14171c;
--c0:#6ea3f5;--c1:#ee9257;--c2:#55c795;--c3:#c18be8}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
body{max-width:1000px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2.5rem}h3{font-size:.95rem;color:var(--soft);font-weight:500}
div{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
td,th{padding:.3rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
td:first-child,th:first-child{text-align:left}th{color:var(--soft);font-weight:500}tr.all td{font-weight:600}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}
.grid{stroke:var(--line)}.trace{fill:none;stroke-width:1.6}.dashed{stroke-dasharray:5 3}
.key{display:inline-block;width:1.2em;border-top:3px solid;margin:0 .4em .25em 1em}
""".strip()


def page(title: str, outcomes: Mapping[str, Outcome]) -> str:
    """One section per outcome, all with the same scales of time and replicas."""
    end = max(outcome.seconds for outcome in outcomes.values())
    most = max((max(p.target, p.ready) for outcome in outcomes.values() for p in outcome.course), default=1)
    plots = "".join(_section(name, outcome, end, most) for name, outcome in outcomes.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{escape(title)}</h1>{_table(outcomes)}{plots}</html>\n"
    )


def measures(of: Summary) -> tuple[str, ...]:
    """What requests had; dashes where there was none. In time, TTFT p50 and p99, TPOT p50."""
    if not of.requests:
        return ("–",) * 4
    seconds = (of.ttft_p50_s, of.ttft_p99_s)
    return (f"{of.attainment:.2%}", *(f"{each:.3f} s" for each in seconds), f"{of.tpot_p50_s * 1000:.1f} ms")


def _table(outcomes: Mapping[str, Outcome]) -> str:
    heads = (
        "",
        "requests",
        "in time",
        "TTFT p50",
        "TTFT p99",
        "TPOT p50",
        "GPU-hours",
        "USD",
        "changes/h",
        "worst queue",
    )
    rows = []
    for name, outcome in outcomes.items():
        rows.append(_row(name, summary(outcome), "all"))
        rows += [_row(f"\u2003{each.name}", each, "site") for each in site_summaries(outcome)]
    return f"<div><table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(rows)}</table></div>"


def _row(name: str, of: Summary, kind: str) -> str:
    cells = (
        escape(name),
        f"{of.requests:,}",
        *measures(of),
        f"{of.gpu_hours:.2f}",
        f"{of.usd:.2f}",
        f"{of.changes_per_hour:.1f}",
        str(of.worst_queue),
    )
    return f'<tr class="{kind}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _section(name: str, outcome: Outcome, end: float, most: int) -> str:
    """Replicas, then requests."""
    courses: dict[str, list[Point]] = {}
    for point in outcome.course:
        courses.setdefault(" ".join(dict.fromkeys(point.place)), []).append(point)
    lines = [
        Line(label, COLOURS[n % len(COLOURS)], points, value, dashed)
        for n, (label, points) in enumerate(courses.items())
        for value, dashed in ((_ready, False), (_target, True))
    ]
    loads = [
        Line(label, COLOURS[n % len(COLOURS)], points, _requests) for n, (label, points) in enumerate(courses.items())
    ]
    keys = "".join(
        f'<span class="key" style="color:var(--{COLOURS[n % len(COLOURS)]})"></span>{escape(label)}'
        for n, label in enumerate(courses)
    )
    return (
        f"<h2>{escape(name)}</h2><p>{keys}</p>"
        f"<h3>Replicas that answer (dashed: wanted)</h3>{_plot(lines, end, most)}"
        f"<h3>Requests running and waiting in engines</h3>{_plot(loads, end, _highest(loads))}"
    )


@dataclass(frozen=True)
class Line:
    label: str
    colour: str
    points: Sequence[Point]
    value: Callable[[Point], int]
    dashed: bool = False


def _ready(point: Point) -> int:
    return point.ready


def _target(point: Point) -> int:
    return point.target


def _requests(point: Point) -> int:
    return point.running + point.waiting


def _highest(lines: Sequence[Line]) -> int:
    return max((line.value(point) for line in lines for point in line.points), default=1)


def _plot(lines: Sequence[Line], end: float, most: int) -> str:
    """Seconds to the right, `most` at the top."""
    most = max(most, 1)

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - 8) * at / end

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 10) * value / most

    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        for value in sorted({0, round(most / 2), most})
    )
    times = "".join(
        f'<text x="{x(at):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{at / unit:g} {name}</text>'
        for at, unit, name in _times(end)
    )
    traces = "".join(
        f'<path class="trace {"dashed" if line.dashed else ""}" style="stroke:var(--{line.colour})" '
        f'd="{_steps(line, x, y)}"/>'
        for line in lines
    )
    label = escape(", ".join(dict.fromkeys(line.label for line in lines)))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{grid}{times}{traces}</svg>'


def _times(end: float) -> Iterator[tuple[int, int, str]]:
    """Round times before the end, in seconds, and the unit to tell them in."""
    step = next((step for step in TIME_STEPS if end / step <= MAX_TIMES), TIME_STEPS[-1])
    unit, name = (1, "s") if step < 60 else (60, "min") if step < 3600 else (3600, "h")
    return ((at, unit, name) for at in range(step, int(end), step))


def _steps(line: Line, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """Only where the value changes."""
    parts: list[str] = []
    before: int | None = None
    for point in line.points:
        value = line.value(point)
        if before is None:
            parts.append(f"M{x(point.at):.1f} {y(value):.1f}")
        elif value != before:
            parts.append(f"H{x(point.at):.1f}V{y(value):.1f}")
        before = value
    if line.points:
        parts.append(f"H{x(line.points[-1].at):.1f}")
    return "".join(parts)
