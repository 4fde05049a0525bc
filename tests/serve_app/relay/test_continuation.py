"""Streams that are cut and go on elsewhere: what the client has of them is what an undisturbed run would have said."""

import itertools
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.engine.faults import End, Fault
from tests.fakes.engine.handle import Engine
from tests.fakes.site import SSE, FakeSite, Reply, events
from tests.fakes.site import End as FakeEnd
from tests.serve_app.asking import CHAT, COMPLETIONS, SEA, Answer, hear, metric, post, stream
from tests.serve_app.conftest import IN_ORDER, KEY, UNRESENTFUL, Endpoint, fleet_spec, serving
from tests.serve_app.faults.fleets import report
from tests.serve_app.waiting import wait_for

ROUTES = (CHAT, COMPLETIONS)
ROUTE = pytest.mark.parametrize("route", ROUTES)
PATIENCE: dict[str, Any] = {"first_byte_timeout_s": 10, "continuation": {"stall_s": 1}}


@pytest.fixture(scope="module")
def shared(three_engines: list[Engine]) -> Iterator[Endpoint]:
    """East is asked first, then west, then north."""
    with serving(fleet_spec(three_engines, policy="in_order", **IN_ORDER, **UNRESENTFUL, **PATIENCE)) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(shared: Endpoint, engines: list[Engine]) -> Endpoint:
    return shared


def cut(after: int, end: End = End.CUT) -> Fault:
    return Fault(end=end, after=after)


# As if nothing had happened


@pytest.mark.parametrize(
    "end",
    [End.CUT, End.RESET, End.STALL, End.MID_EVENT, End.MALFORMED, End.NO_DONE, End.ERROR],
    ids=lambda end: end.name,
)
@pytest.mark.parametrize("stop", [None, ["qu", " a"], ["e s"]], ids=str)
@ROUTE
def test_a_cut_stream_reads_as_if_nothing_had_happened(
    endpoint: Endpoint, engines: list[Engine], route: str, stop: list[str] | None, end: End
) -> None:
    undisturbed = hear(endpoint, route, stop=stop)
    cuts = (2, 7) if end is End.STALL else (0, 1, 2, 7, 21)
    engines[0].plan(*(cut(after, end) for after in cuts))
    with ThreadPoolExecutor(len(cuts)) as pool:
        heard = list(pool.map(lambda _: hear(endpoint, route, stop=stop), cuts))
    assert heard == [undisturbed] * len(cuts)
    assert (undisturbed.answers, len(undisturbed.usages), len(undisturbed.finish_reasons)) == (1, 1, 1)


@ROUTE
def test_a_stream_may_be_cut_after_any_token(endpoint: Endpoint, engines: list[Engine], route: str) -> None:
    undisturbed = hear(endpoint, route)
    for after in range(60):
        engines[0].plan(cut(after))
        assert hear(endpoint, route) == undisturbed, f"after {after} tokens"
    assert metric(endpoint, 'rayfleet_continuations_total{mode="tokens",outcome="ok"}') >= 50
    sent = sum(engine.seen().tokens for engine in engines[1:])
    assert sent < 60 * 61 / 2 + 60 * 5, "what was delivered is not generated again"


def test_the_end_of_the_text_is_kept(endpoint: Endpoint, engines: list[Engine]) -> None:
    undisturbed = hear(endpoint, CHAT, max_tokens=300)
    assert undisturbed.finish_reasons == ("stop",)
    engines[0].plan(cut(100))
    assert hear(endpoint, CHAT, max_tokens=300) == undisturbed


@pytest.mark.parametrize("include", [False, True])
@ROUTE
def test_a_stop_string_over_the_seam_ends_the_answer(
    endpoint: Endpoint, engines: list[Engine], route: str, include: bool
) -> None:
    text, found = hear(endpoint, route).text, 0
    for after in range(4, 50):
        before = hear(endpoint, route, max_tokens=after).text
        stop = text[len(before) - 2 : len(before) + 2]
        if not text.startswith(before) or text.find(stop) != len(before) - 2:
            continue
        found += 1
        stopped = hear(endpoint, route, stop=stop, include_stop_str_in_output=include)
        engines[0].plan(cut(after))
        heard = hear(endpoint, route, stop=stop, include_stop_str_in_output=include)
        # The engine that goes on holds text back, too: a few tokens more may be counted.
        assert replace(heard, usages=()) == replace(stopped, usages=())
        assert stopped.usages[0][1] <= heard.usages[0][1] <= stopped.usages[0][1] + len(stop)
        assert stopped.text == (text[: len(before) + 2] if include else text[: len(before) - 2])
    assert found > 10


@ROUTE
def test_a_stream_may_be_cut_three_times(endpoint: Endpoint, engines: list[Engine], route: str) -> None:
    undisturbed = hear(endpoint, route)
    for engine, after in zip(engines, (5, 9, 20), strict=True):
        engine.plan(cut(after))
    assert hear(endpoint, route) == undisturbed
    engines[0].plan(cut(1))
    engines[1].plan(cut(1, End.STALL))
    assert hear(endpoint, route) == undisturbed


@ROUTE
def test_a_stream_that_lacks_only_its_last_event_generates_no_more(
    endpoint: Endpoint, engines: list[Engine], route: str
) -> None:
    undisturbed = hear(endpoint, route, stop=["sea", "ship"])
    engines[0].plan(cut(5))
    engines[1].plan(Fault(end=End.NO_DONE, only="/v1/completions"))
    assert hear(endpoint, route, stop=["sea", "ship"]) == undisturbed
    assert not engines[2].seen().requests


@ROUTE
def test_token_ids_that_the_client_asked_for_are_complete(
    endpoint: Endpoint, engines: list[Engine], route: str
) -> None:
    undisturbed = hear(endpoint, route, return_token_ids=True)
    assert len(undisturbed.token_ids) == undisturbed.usages[0][1]
    for after in (1, 2, 7, 30):
        engines[0].plan(cut(after))
        assert hear(endpoint, route, return_token_ids=True) == undisturbed
    engines[0].plan(cut(7))
    assert hear(endpoint, route).token_ids == ()


@ROUTE
def test_a_sampled_stream_loses_and_repeats_no_token(endpoint: Endpoint, engines: list[Engine], route: str) -> None:
    sampled: dict[str, Any] = {"temperature": 1, "seed": 7, "return_token_ids": True}
    undisturbed = hear(endpoint, route, **sampled)
    for after in (1, 8, 40):
        engines[0].plan(cut(after))
        heard = hear(endpoint, route, **sampled)
        asked = engines[1].seen().requests[-1].json
        known = asked["prompt"][undisturbed.usages[0][0] :]
        assert heard.token_ids[:after] == undisturbed.token_ids[:after]
        assert tuple(known) == heard.token_ids[: len(known)]
        assert asked["seed"] == 7 + len(known), "the same random numbers are not drawn again"
        assert heard.usages[0][1] == len(heard.token_ids)
        again = hear(
            endpoint, COMPLETIONS, **sampled | {name: asked[name] for name in ("prompt", "seed", "max_tokens")}
        )
        assert heard.token_ids[len(known) :] == again.token_ids


# By text


@ROUTE
def test_without_token_ids_the_text_is_continued(endpoint: Endpoint, engines: list[Engine], route: str) -> None:
    for engine in engines:
        engine.behave(canonical=True)
    undisturbed = hear(endpoint, route)
    for after in (0, 1, 2, 7, 21):
        engines[0].plan(cut(after))
        heard = hear(endpoint, route, return_token_ids=False)
        assert heard == undisturbed
    assert metric(endpoint, 'rayfleet_continuations_total{mode="text",outcome="ok"}') >= 4


def test_where_token_ids_are_refused_the_text_is_continued(endpoint: Endpoint, engines: list[Engine]) -> None:
    for engine in engines:
        engine.behave(canonical=True, refuses_continuation=True)
    undisturbed = hear(endpoint, COMPLETIONS, stop=["~"])
    engines[0].plan(cut(7))
    assert hear(endpoint, COMPLETIONS, stop=["~"]) == undisturbed


# Where it would be wrong, or can't be done


def assert_told(
    endpoint: Endpoint, route: str, why: str, headers: dict[str, str] | None = None, **fields: Any
) -> Answer:
    """The stream ends with an error event that says why, without `[DONE]`, and is broken off."""
    answer = post(endpoint, route, headers=headers, **{"stream": True, **fields})
    assert (answer.status, answer.whole) == (200, False)
    assert b"[DONE]" not in answer.body
    assert answer.error["code"] == "upstream_failed"
    assert "cut off" in answer.error["message"]
    assert why in answer.error["message"]
    return answer


TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"tools": [TOOL]}, "it may call tools"),
        ({"n": 2}, "it has several choices"),
        ({"logprobs": True}, "it carries log probabilities"),
        ({"response_format": {"type": "json_object"}}, "its structure can't be resumed half way"),
        ({"frequency_penalty": 0.5}, "its penalties count the tokens of one run"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_what_cannot_go_on_ends_with_an_error_that_says_why(
    endpoint: Endpoint, engines: list[Engine], fields: dict[str, Any], why: str
) -> None:
    engines[0].plan(cut(3))
    assert_told(endpoint, CHAT, why, **fields)
    assert not any(engine.seen().requests for engine in engines[1:])


@ROUTE
def test_a_stream_that_every_site_cuts_ends_with_an_error(
    endpoint: Endpoint, engines: list[Engine], route: str
) -> None:
    undisturbed = hear(endpoint, route)
    for engine in engines:
        engine.always(cut(3))
    answer = assert_told(endpoint, route, "it was cut too often")
    assert answer.text
    assert undisturbed.text.startswith(answer.text)
    assert sum(len(engine.seen().requests) for engine in engines) == 1 + 1 + 3


def test_an_engine_that_takes_no_beginning_is_told_of(endpoint: Endpoint, engines: list[Engine]) -> None:
    for engine in engines:
        engine.behave(refuses_continuation=True)
    engines[0].plan(cut(3), cut(3))
    assert_told(endpoint, CHAT, "its token ids can't be used")
    assert_told(endpoint, CHAT, "the engine refuses to go on with a given beginning", stop=["~"])


def test_a_stream_never_goes_on_where_its_request_may_not_go(
    three_engines: list[Engine], engines: list[Engine]
) -> None:
    spec = fleet_spec(three_engines, policy="in_order", **IN_ORDER, **UNRESENTFUL, **PATIENCE)
    abroad = tuple(
        site if site.name == "east" else site.model_copy(update={"jurisdiction": "us"}) for site in spec.sites
    )
    rules = {"x-rayfleet-jurisdiction": "ch"}, {"x-rayfleet-site-only": "east"}
    reasons = "may be processed in: ch", "the request is for east only"
    engines[0].plan(cut(3), cut(3))
    with serving(spec.model_copy(update={"sites": abroad})) as strict, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda rule, why: assert_told(strict, CHAT, why, rule), rules, reasons))
    assert not any(engine.seen().requests for engine in engines[1:])


# The client


def test_a_client_that_leaves_stops_the_site_that_goes_on(endpoint: Endpoint, engines: list[Engine]) -> None:
    engines[0].plan(cut(5))
    engines[1].behave(token_s=0.1)
    leaving = stream(endpoint, CHAT)
    for _, _ in zip(range(12), leaving, strict=False):
        pass
    leaving.close()
    wait_for(lambda: engines[1].seen().left == 1 and engines[1].seen().running == 0)


# Draining


def test_a_drained_site_moves_its_streams_past_the_deadline(endpoint: Endpoint, engines: list[Engine]) -> None:
    undisturbed = hear(endpoint, CHAT)
    engines[0].behave(token_s=0.2)
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(hear, endpoint, CHAT) for _ in range(8)]
        wait_for(lambda: engines[0].seen().running == 8)
        wait_for(lambda: engines[0].seen().tokens > 16)
        engines[0].behave(drain_s=0.0)
        assert [each.result() for each in running] == [undisturbed] * 8
    assert engines[0].seen().left == 8


def test_streams_that_no_other_place_takes_end_where_they_are_drained(
    endpoint: Endpoint, engines: list[Engine]
) -> None:
    wait_for(lambda: not report(endpoint, "east")["draining"])
    undisturbed = hear(endpoint, CHAT)
    engines[0].behave(token_s=0.05)
    for engine in engines[1:]:
        engine.behave(claims={"running": 1000})
    wait_for(lambda: all(report(endpoint, site)["placements"][0]["running"] == 1000 for site in ("west", "north")))
    with ThreadPoolExecutor(2) as pool:
        pinned = pool.submit(hear, endpoint, CHAT, {"x-rayfleet-site-only": "east"})
        stuck = pool.submit(hear, endpoint, CHAT)
        wait_for(lambda: engines[0].seen().running == 2)
        engines[0].behave(token_s=0.05, drain_s=0.0)
        assert [pinned.result(), stuck.result()] == [undisturbed] * 2
    assert engines[0].seen().left == 0


def test_a_slow_client_slows_the_site_that_goes_on(sites: list[FakeSite]) -> None:
    def flood() -> Iterator[bytes]:
        return itertools.chain.from_iterable(events("x" * 2**16, done=False).chunks for _ in range(2048))

    sites[0].otherwise = events("one ", done=False, end=FakeEnd.CUT)
    sites[1].otherwise = Reply(200, (SSE,), flood())
    spec = fleet_spec(sites, policy="in_order", **IN_ORDER)
    with serving(spec) as patient, socket.create_connection(("127.0.0.1", patient.port)) as client:
        body = json.dumps({"model": "chat", "messages": SEA, "stream": True}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        wait_for(lambda: sites[1].sent > 2**20)
        for _ in range(20):
            post(patient, CHAT, headers={"x-rayfleet-site-only": "north"})
        assert sites[1].sent < 2**26, "half of the flood: what the client has not read, the gateway must not have read"
    assert sites[1].aborted.get(timeout=20)
