"""What goes wrong before the first byte, counted at the client and at the sites."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.fakes.engine.faults import NEVER_ANSWERS, RESET, End, Fault, too_many
from tests.fakes.engine.handle import Engine
from tests.serve_app.asking import CHAT, COMPLETIONS, Answer, hear, metric, post
from tests.serve_app.conftest import UNRESENTFUL, Endpoint, serving
from tests.serve_app.faults.fleets import hosted, in_order, report, requests, with_context, with_hosted
from tests.serve_app.waiting import wait_for

STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
def shared(three_engines: list[Engine]) -> Iterator[Endpoint]:
    with serving(in_order(three_engines, first_byte_timeout_s=30, **UNRESENTFUL)) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(shared: Endpoint, engines: list[Engine]) -> Endpoint:
    return shared


def assert_served(answer: Answer, site: str, attempts: int) -> None:
    assert (answer.status, answer.whole) == (200, True)
    assert (answer.headers["x-rayfleet-site"], answer.headers["x-rayfleet-attempts"]) == (site, str(attempts))


# Busy


def test_retry_after_is_honoured(three_engines: list[Engine], engines: list[Engine]) -> None:
    east, west, _ = engines
    with serving(in_order(three_engines)) as endpoint:
        east.plan(too_many("600"))
        assert_served(post(endpoint, CHAT), "west", 2)
        for _ in range(5):
            assert_served(post(endpoint, CHAT), "west", 1)
        assert report(endpoint, "east")["ejected"]["chat"].startswith("rests for ")
        west.plan(too_many("1"))
        assert_served(post(endpoint, CHAT), "north", 2)
        assert_served(post(endpoint, CHAT), "north", 1)
        wait_for(lambda: post(endpoint, CHAT).headers["x-rayfleet-site"] == "west")
    assert requests(east) == [1]


def test_without_retry_after_a_busy_site_is_asked_again_and_is_not_ill(
    three_engines: list[Engine], engines: list[Engine]
) -> None:
    engines[0].always(too_many())
    with serving(in_order(three_engines, retry_budget=1)) as endpoint:
        for _ in range(8):
            assert_served(post(endpoint, CHAT), "west", 2)
        assert report(endpoint, "east")["ejected"] == {}
    assert requests(*engines) == [8, 8, 0]


# Broken


@STREAM
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(status=500), id="500"),
        pytest.param(Fault(status=503), id="503"),
        pytest.param(Fault(page="<h1>Bad Gateway</h1>", status=502), id="a proxy's page"),
        pytest.param(Fault(end=End.ERROR), id="the engine's error"),
    ],
)
def test_one_failure_costs_one_attempt(endpoint: Endpoint, engines: list[Engine], fault: Fault, stream: bool) -> None:
    post(endpoint, CHAT)
    engines[0].forget()
    engines[0].plan(fault)
    assert_served(post(endpoint, CHAT, stream=stream), "west", 2)
    assert_served(post(endpoint, CHAT, stream=stream), "east", 1)
    assert requests(*engines) == [2, 1, 0]


@STREAM
def test_a_reset_before_the_head_costs_one_attempt(endpoint: Endpoint, engines: list[Engine], stream: bool) -> None:
    engines[0].always(RESET)
    assert_served(post(endpoint, CHAT, stream=stream), "west", 2)
    wait_for(lambda: all(request.outcome == "broken" for request in engines[0].seen().requests))
    assert requests(*engines)[1:] == [1, 0]


def test_a_connection_that_is_reset_while_idle_costs_no_attempt(endpoint: Endpoint, engines: list[Engine]) -> None:
    post(endpoint, CHAT)
    engines[0].drop()
    assert_served(post(endpoint, CHAT), "east", 1)


def test_a_site_that_always_fails_is_left_alone(three_engines: list[Engine], engines: list[Engine]) -> None:
    engines[0].always(Fault(status=503))
    with serving(in_order(three_engines, health={"consecutive_errors": 5, "ejection_s": 100})) as endpoint:
        attempts = [post(endpoint, CHAT).headers["x-rayfleet-attempts"] for _ in range(12)]
    assert attempts == ["2"] * 5 + ["1"] * 7
    assert requests(*engines) == [5, 12, 0]


# Silent


@STREAM
def test_a_site_that_accepts_and_never_answers_is_given_up(
    three_engines: list[Engine], engines: list[Engine], stream: bool
) -> None:
    engines[0].plan(NEVER_ANSWERS)
    with serving(in_order(three_engines, first_byte_timeout_s=1)) as endpoint:
        assert_served(post(endpoint, CHAT, stream=stream), "west", 2)
        wait_for(lambda: engines[0].seen().left == 1)
    assert requests(*engines) == [1, 1, 0]


@pytest.mark.parametrize("pooled", [False, True], ids=["a new connection", "a pooled connection"])
def test_a_site_that_is_stopped_is_given_up(three_engines: list[Engine], engines: list[Engine], pooled: bool) -> None:
    with serving(in_order(three_engines, first_byte_timeout_s=1)) as endpoint:
        if pooled:
            post(endpoint, CHAT)
        engines[0].pause()
        try:
            assert_served(post(endpoint, CHAT), "west", 2)
        finally:
            engines[0].resume()


def test_who_waits_at_a_site_that_fell_silent_need_not_wait_for_its_timeout(
    three_engines: list[Engine], engines: list[Engine]
) -> None:
    quick = {"first_byte_timeout_s": 60, "state_max_age_s": 0.5, "continuation": {"stall_s": 0.5}}
    with serving(in_order(three_engines, **quick)) as many, serving(in_order(three_engines[:1], **quick)) as one:
        engines[0].pause()
        with ThreadPoolExecutor(1) as pool:
            try:
                alone = pool.submit(post, one, CHAT)
                assert_served(post(many, CHAT), "west", 2)
                assert not alone.done(), "there is no other site, and it may yet answer"
            finally:
                engines[0].resume()
            assert_served(alone.result(), "east", 1)


def test_who_waits_at_a_site_that_still_answers_others_stays(
    three_engines: list[Engine], engines: list[Engine]
) -> None:
    """Its agent may have no time to tell its state."""
    east = engines[0]
    east.behave(max_num_seqs=1, token_s=0.08)
    quick = {"first_byte_timeout_s": 60, "state_max_age_s": 1, "continuation": {"stall_s": 2}}
    with serving(in_order(three_engines, **quick)) as endpoint, ThreadPoolExecutor(2) as pool:
        running = pool.submit(post, endpoint, CHAT, stream=True)
        wait_for(lambda: requests(east) == [1])
        waiting = pool.submit(post, endpoint, CHAT, stream=True)
        wait_for(lambda: requests(east) == [2])
        east.behave(max_num_seqs=1, token_s=0.08, state=Fault(status=503))
        assert_served(running.result(), "east", 1)
        assert_served(waiting.result(), "east", 1)


def test_all_who_wait_at_a_site_that_is_lost_go_elsewhere(three_engines: list[Engine], engines: list[Engine]) -> None:
    """They are many more than the retries that the fleet may have at once."""
    with serving(in_order(three_engines, first_byte_timeout_s=3, retry_budget=0.01)) as endpoint:
        engines[0].pause()
        try:
            with ThreadPoolExecutor(40) as pool:
                answers = list(pool.map(lambda number: post(endpoint, CHAT, stream=number % 2 > 0), range(40)))
        finally:
            engines[0].resume()
        assert metric(endpoint, "rayfleet_retries_denied_total") == 0
    assert {(answer.status, answer.whole) for answer in answers} == {(200, True)}
    assert sum(answer.headers["x-rayfleet-attempts"] == "2" for answer in answers) > 10


@contextmanager
def half_open() -> Iterator[int]:
    """A port whose backlog is full: whoever connects hears nothing, not even a refusal."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port: int = listener.getsockname()[1]
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port


def test_a_connection_that_stays_half_open_is_given_up(three_engines: list[Engine], engines: list[Engine]) -> None:
    deaf_first = {"in_order": {"preset": "primary_standby", "order": ["deaf", "east"]}}
    with half_open() as port:
        target = hosted("deaf", f"http://127.0.0.1:{port}/v1", use="by_price")
        spec = with_hosted(in_order(three_engines, connect_timeout_s=0.5, policies=deaf_first), target)
        with serving(spec, {"deaf": "x"}) as endpoint:
            assert_served(post(endpoint, CHAT), "east", 2)
            assert_served(post(endpoint, CHAT, stream=True), "east", 2)


# Slow


@STREAM
def test_a_slow_first_token_is_waited_for(endpoint: Endpoint, engines: list[Engine], stream: bool) -> None:
    engines[0].plan(Fault(first_token_s=1.5))
    assert_served(post(endpoint, CHAT, stream=stream), "east", 1)
    assert requests(*engines) == [1, 0, 0]


HEDGING = {"enabled": True, "factor": 1, "min_delay_s": 0.3, "max_share": 1, "max_usd": 1}


def test_a_hedge_wins_against_a_slow_site_which_is_stopped(three_engines: list[Engine], engines: list[Engine]) -> None:
    with serving(in_order(three_engines, hedge=HEDGING)) as endpoint:
        undisturbed = hear(endpoint, CHAT, {"x-rayfleet-site-only": "east"})
        engines[0].plan(Fault(first_token_s=60))
        assert_served(post(endpoint, CHAT, stream=True), "west", 2)
        wait_for(lambda: engines[0].seen().left == 1)
        engines[0].plan(Fault(first_token_s=60))
        assert hear(endpoint, CHAT) == undisturbed
        assert metric(endpoint, 'rayfleet_hedges_total{outcome="won"}') == 2
        assert metric(endpoint, 'rayfleet_requests_total{model="chat",outcome="ok",site="west"}') == 2
    assert engines[1].seen().left == 0


def test_hedges_stay_within_their_share(three_engines: list[Engine], engines: list[Engine]) -> None:
    for engine in engines:
        engine.behave(max_num_seqs=64)
    engines[0].always(Fault(first_token_s=2))
    with (
        serving(in_order(three_engines, hedge={**HEDGING, "max_share": 0.01})) as endpoint,
        ThreadPoolExecutor(30) as pool,
    ):
        answers = list(pool.map(lambda _: post(endpoint, CHAT, max_tokens=1), range(30)))
    assert all(answer.status == 200 for answer in answers)
    assert sum(requests(*engines[1:])) <= 10, "ten at once, and then one of a hundred"


def test_without_hedging_no_second_site_is_asked(endpoint: Endpoint, engines: list[Engine]) -> None:
    engines[0].plan(Fault(first_token_s=1))
    post(endpoint, CHAT, stream=True)
    assert requests(*engines) == [1, 0, 0]


# What the engine says of the request


def test_a_prompt_that_is_too_long_goes_where_it_fits(three_engines: list[Engine], engines: list[Engine]) -> None:
    for engine, tokens in zip(engines, (100, 100, 4096), strict=True):
        engine.behave(max_model_len=tokens)
    spec = with_context(in_order(three_engines), east=100, west=100)
    with serving(spec) as endpoint:
        answer = post(endpoint, COMPLETIONS, prompt="sea " * 200, max_tokens=5)
        assert_served(answer, "north", 2)
        assert report(endpoint, "east")["ejected"] == {}
    assert requests(*engines) == [1, 0, 1]


def test_a_prompt_that_fits_nowhere_is_the_engines_error(three_engines: list[Engine], engines: list[Engine]) -> None:
    for engine in engines:
        engine.behave(max_model_len=100)
    spec = with_context(in_order(three_engines), east=100, west=100, north=100)
    with serving(spec) as endpoint:
        answer = post(endpoint, COMPLETIONS, prompt="sea " * 200, max_tokens=5)
    assert (answer.status, answer.headers["x-rayfleet-attempts"]) == (400, "1")
    assert "maximum context length is 100 tokens" in answer.error["message"]
    assert requests(*engines) == [1, 0, 0]


@STREAM
def test_a_content_filter_is_an_answer(endpoint: Endpoint, engines: list[Engine], stream: bool) -> None:
    engines[0].plan(Fault(end=End.FILTER, after=3))
    answer = post(endpoint, CHAT, stream=stream)
    assert_served(answer, "east", 1)
    assert b'"finish_reason":"content_filter"' in answer.body
    assert requests(*engines) == [1, 0, 0]


def test_the_clients_mistake_is_not_retried(endpoint: Endpoint, engines: list[Engine]) -> None:
    answer = post(endpoint, CHAT, temperature=-1)
    assert (answer.status, answer.headers["x-rayfleet-attempts"]) == (400, "1")
    assert requests(*engines) == [1, 0, 0]
