"""An explanation of the router's, drawn for people."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from serve_app.routing.explanation import Asked, Considered, Explanation

REQUESTS = 1e6
"""Dollars are shown for so many: those of one are too small to read."""


def reasons(explanation: Explanation) -> RenderableType:
    """The request, the places that could serve it with their terms, and the others with what speaks against them."""
    parts: list[RenderableType] = [_asked(explanation.request), _outcome(explanation)]
    if explanation.considered:
        ranked = sorted(explanation.considered, key=lambda place: (place.rank, place.score))
        parts += [Text(), _dollars(ranked), Text(), _seconds(ranked)]
    if explanation.rejections:
        parts += [Text(), _rejections(explanation.rejections)]
    return Group(*parts)


def _asked(request: Asked) -> Text:
    facts = [
        f"{request.task or 'no task'}{', streamed' if request.stream else ''}",
        f"{request.prompt_tokens} prompt tokens, {request.expected_output_tokens:.0f} more expected",
        f"tenant {request.tenant}",
        f"hosted: {request.hosted}",
    ]
    if request.jurisdictions is not None:
        facts.append(f"jurisdictions: {', '.join(request.jurisdictions) or 'none'}")
    if request.only_site is not None:
        facts.append(f"for {request.only_site} only")
    if request.min_context:
        facts.append(f"a context of {request.min_context} tokens or more")
    return Text(request.model, "bold").append(f": {'; '.join(facts)}", "not bold")


def _outcome(explanation: Explanation) -> Text:
    if explanation.target is not None:
        return Text.assemble((explanation.target, "bold green"), f", by the policy {explanation.policy}")
    if explanation.full:
        return Text("It waits: every place that may serve it is full.", "yellow")
    if explanation.forbidden:
        return Text("No place may serve it.", "red")
    return Text("No place can serve it now.", "red")


def _dollars(places: Sequence[Considered]) -> Table:
    terms = ("tokens", "saved", "egress", "late", "total", "rank", "score")
    table = _table("USD for a million such requests", "place", *terms)
    for place in places:
        usd = (place.usd_tokens, place.usd_saved, place.usd_egress, place.usd_late, place.usd_total)
        cells = (*(f"{each * REQUESTS:,.2f}" for each in usd), str(place.rank), f"{place.score:.3g}")
        _add(table, place, cells)
    return table


def _seconds(places: Sequence[Considered]) -> Table:
    terms = ("TTFT", "round trip", "queue", "prefill", "cached tokens", "load", "market")
    table = _table("Seconds to the first token of one", "place", *terms)
    for place in places:
        seconds = (place.predicted_ttft_s, place.round_trip_s, place.queue_s, place.prefill_s)
        load = f"{place.load * place.slots:.0f} for {place.slots:g} slots"
        market = "hosted" if place.hosted else str(place.market)
        _add(table, place, (*(f"{each:.3f}" for each in seconds), str(place.cached_tokens), load, market))
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _add(table: Table, place: Considered, cells: Sequence[str]) -> None:
    mark, style = ("→ ", "bold green") if place.chosen else ("  ", "")
    table.add_row(mark + place.name, *cells, style=style)


def _rejections(rejections: dict[str, str]) -> Table:
    table = Table("place", "why not")
    for place, reason in rejections.items():
        table.add_row(Text(place), Text(reason))
    return table
