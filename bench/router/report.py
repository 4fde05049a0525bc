"""The figures as tables for people."""

from collections.abc import Sequence

from bench.report import Row, print_table
from bench.router.figures import Figures, Latency, OpenStreams, Window


def print_figures(all_figures: Sequence[Figures]) -> None:
    print_table(
        "Answers at 100 requests/s: milliseconds added to the engine's own, which is driven directly in between",
        ("added p50", "added p99", "direct p50", "direct p99", "unanswered"),
        [(one.name, *_latency(one.latency)) for one in all_figures if one.latency],
    )
    print_table(
        "First byte of streams at 100 streams/s, in the same way",
        ("added p50", "added p99", "direct p50", "direct p99", "unanswered"),
        [(one.name, *_latency(one.first_byte)) for one in all_figures if one.first_byte],
    )
    requests = ("CPU ms/request", "requests/s", "seen/s", "core busy", "limited by", "failures")
    print_table(
        "Whole answers, 64 connections, bodies of 600 bytes: what one core gives",
        requests,
        [(one.name, *_requests(one.short)) for one in all_figures],
    )
    print_table(
        "The same with conversations of 2 to 6 KB, no two alike",
        requests,
        [(one.name, *_requests(one.conversations)) for one in all_figures],
    )
    chunks = ("CPU s/100k chunks", "chunks/s", "core busy", "limited by", "failures")
    print_table("64 streams, flat out", chunks, [(one.name, *_chunks(one.flat_out)) for one in all_figures])
    print_table(
        "1,000 open streams of 10 chunks/s each",
        ("CPU s/100k chunks", "chunks/s", "core busy", "KB/stream", "streams open", "failures"),
        [(one.name, *_open_streams(one.open_streams)) for one in all_figures],
    )
    print_table(
        "CPU of processes beside the data plane, in the same intervals: share of a core",
        ("64 connections", "flat out", "1,000 streams"),
        [(one.name, *_rest(one)) for one in all_figures if one.short.rest_cpu_s],
    )


def _latency(latency: Latency) -> Row:
    milliseconds = (latency.added_p50, latency.added_p99, latency.direct_p50, latency.direct_p99)
    return (*(f"{value:.3f}" for value in milliseconds), str(latency.unanswered))


def _requests(window: Window) -> Row:
    return (
        f"{window.cpu_ms_per_request:.4f}",
        f"{window.requests_per_s:,.0f}",
        f"{window.answers / window.wall_s:,.0f}",
        *_limit(window),
        str(window.failures),
    )


def _chunks(window: Window) -> Row:
    return (
        f"{window.cpu_s_per_100k_events:.3f}",
        f"{window.events / window.wall_s:,.0f}",
        *_limit(window),
        str(window.failures),
    )


def _open_streams(streams: OpenStreams) -> Row:
    window, memory = streams.window, streams.kb_per_stream
    return (
        f"{window.cpu_s_per_100k_events:.3f}",
        f"{window.events / window.wall_s:,.0f}",
        f"{window.busy:.0%}",
        "-" if memory is None else f"{memory:.1f}",
        f"{streams.opened:,}",
        str(window.failures),
    )


def _rest(figures: Figures) -> Row:
    windows = (figures.short, figures.flat_out, figures.open_streams.window)
    return tuple(f"{window.rest_cpu_s / window.wall_s:.1%}" for window in windows)


def _limit(window: Window) -> Row:
    return f"{window.busy:.0%}", "generator" if window.generator_bound else "its core"
