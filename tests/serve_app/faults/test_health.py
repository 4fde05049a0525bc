"""Sites that are ill, that lie, or that can't be asked how they are; and all of them at once."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.engine.faults import End, Fault
from tests.fakes.engine.handle import Engine
from tests.serve_app.asking import CHAT, Answer, get, metric, post
from tests.serve_app.conftest import Endpoint, serving
from tests.serve_app.faults.fleets import in_order, report, requests
from tests.serve_app.waiting import wait_for

UNAVAILABLE = Fault(status=503)


def served_by(endpoint: Endpoint) -> str:
    answer = post(endpoint, CHAT, max_tokens=2)
    assert answer.status == 200
    return answer.headers["x-rayfleet-site"]


# Ejection, probe, ramp


def test_an_ill_site_is_ejected_probed_and_brought_back_slowly(
    three_engines: list[Engine], engines: list[Engine]
) -> None:
    east = engines[0]
    health = {"consecutive_errors": 3, "ejection_s": 2, "ramp_s": 60}
    with serving(in_order(three_engines, health=health)) as endpoint:
        east.always(UNAVAILABLE)
        assert [served_by(endpoint) for _ in range(4)] == ["west"] * 4
        assert requests(east) == [3]
        assert "3 failures in a row" in report(endpoint, "east")["ejected"]["chat"]
        wait_for(lambda: metric(endpoint, 'rayfleet_place_ejected{model="chat",site="east"}') == 1)
        wait_for(lambda: served_by(endpoint) == "west" and requests(east) == [4])
        assert "its probe failed" in report(endpoint, "east")["ejected"]["chat"]
        east.heal()
        assert served_by(endpoint) == "west", "the second ejection is longer"
        wait_for(lambda: served_by(endpoint) == "east")
        assert 0 < report(endpoint, "east")["shares"]["chat"] < 0.9
        assert report(endpoint, "east")["ejected"] == {}


def test_one_request_at_a_time_is_the_probe(three_engines: list[Engine], engines: list[Engine]) -> None:
    east = engines[0]
    health = {"consecutive_errors": 1, "ejection_s": 0.5}
    with serving(in_order(three_engines, health=health)) as endpoint, ThreadPoolExecutor(6) as pool:
        east.plan(UNAVAILABLE)
        assert served_by(endpoint) == "west"
        east.always(Fault(head_after_s=2))
        time.sleep(0.6)
        sites = list(pool.map(lambda _: served_by(endpoint), range(6)))
    assert sorted(sites) == ["east"] + ["west"] * 5
    assert requests(east) == [2]


def test_stalls_within_streams_eject_a_site(three_engines: list[Engine], engines: list[Engine]) -> None:
    engines[0].always(Fault(end=End.STALL, after=2))
    patience = {"health": {"consecutive_errors": 2, "ejection_s": 100}, "continuation": {"stall_s": 0.5}}
    with serving(in_order(three_engines, **patience)) as endpoint:
        answers = [post(endpoint, CHAT, stream=True) for _ in range(3)]
        assert "no byte for 0.5 s" in report(endpoint, "east")["ejected"]["chat"]
    assert all(answer.whole for answer in answers)
    assert len({answer.text for answer in answers}) == 1
    assert requests(engines[0]) == [2]


# Everything at once


def test_an_outage_everywhere_does_not_multiply_the_load(three_engines: list[Engine], engines: list[Engine]) -> None:
    for engine in engines:
        engine.always(UNAVAILABLE)
    with serving(in_order(three_engines, retry_budget=0.1)) as endpoint:
        answers = [post(endpoint, CHAT) for _ in range(60)]
        assert metric(endpoint, "rayfleet_retries_denied_total") > 0
    assert {answer.status for answer in answers} == {503}
    assert sum(requests(*engines)) <= 60 * 1.1 + 10
    assert sum(int(answer.headers["x-rayfleet-attempts"]) for answer in answers) == sum(requests(*engines))


def test_a_flapping_site_costs_no_request(three_engines: list[Engine], engines: list[Engine]) -> None:
    engines[0].behave(token_s=0.02)
    with serving(in_order(three_engines, health={"ejection_s": 0.5, "ramp_s": 1})) as endpoint:
        undisturbed = post(endpoint, CHAT, stream=True).text
        before = requests(engines[0])[0]
        end = time.monotonic() + 15

        def load(number: int) -> list[Answer]:
            answers = []
            while time.monotonic() < end:
                answers.append(post(endpoint, CHAT, stream=number % 3 > 0))
            return answers

        with ThreadPoolExecutor(6) as pool:
            loads = [pool.submit(load, number) for number in range(6)]
            # Its first fall is to cut streams.
            wait_for(lambda: requests(engines[0])[0] >= before + 12)
            engines[0].flap(down_s=0.5, up_s=1.5, for_s=13)
            answers = [answer for load in loads for answer in load.result()]
        assert metric(endpoint, 'rayfleet_continuations_total{mode="tokens",outcome="ok"}') > 0
    assert [answer for answer in answers if not (answer.status == 200 and answer.whole)] == []
    assert {answer.text for answer in answers if answer.body.startswith(b"data: ")} == {undisturbed}
    assert len(answers) > 30


# States


@pytest.mark.parametrize("lie", [{"running": 0, "replicas": 100}, {"capacity": 1000}], ids=str)
def test_a_site_that_claims_to_be_free_and_is_not_is_left(
    three_engines: list[Engine], engines: list[Engine], lie: dict[str, int]
) -> None:
    engines[0].behave(claims=lie, otherwise=UNAVAILABLE)
    with serving(in_order(three_engines, policy="least_loaded")) as endpoint:
        wait_for(lambda: lie.items() <= report(endpoint, "east")["placements"][0].items())
        answers = [post(endpoint, CHAT) for _ in range(30)]
    assert {answer.status for answer in answers} == {200}
    assert requests(engines[0])[0] <= 5


def test_a_site_that_claims_a_model_which_it_lacks_is_left(three_engines: list[Engine], engines: list[Engine]) -> None:
    with Engine("east", models=("embed",)) as east:
        east.behave(claims={"model": "chat"})
        with serving(in_order([east, *three_engines[1:]])) as endpoint:
            assert [served_by(endpoint) for _ in range(8)] == ["west"] * 8
            assert "status 404" in report(endpoint, "east")["ejected"]["chat"]


def test_a_site_whose_clock_is_wrong_is_as_good_as_any(three_engines: list[Engine], engines: list[Engine]) -> None:
    engines[0].behave(state_age_s=86_400)
    with serving(in_order(three_engines)) as endpoint:
        assert served_by(endpoint) == "east"
        assert report(endpoint, "east")["age_s"] < 5


def test_a_site_whose_state_is_nonsense_is_not_asked(three_engines: list[Engine], engines: list[Engine]) -> None:
    engines[0].behave(claims={"replicas": -1})
    with serving(in_order(three_engines)) as endpoint:
        assert served_by(endpoint) == "west"
        assert "its state is not valid" in report(endpoint, "east")["reason"]


def test_data_flows_on_while_the_state_cannot_be_read(three_engines: list[Engine], engines: list[Engine]) -> None:
    with serving(in_order(three_engines, state_max_age_s=3)) as endpoint:
        engines[0].behave(state=Fault(status=500))
        flowing_until = time.monotonic() + 8
        while time.monotonic() < flowing_until:
            assert served_by(endpoint) == "east"
        assert not report(endpoint, "east")["healthy"]
        wait_for(lambda: get(endpoint, "/healthz").json["sites"] == {"east": False, "west": True, "north": True})
        time.sleep(3.5)
        assert served_by(endpoint) == "west", "no request has succeeded there for so long"
        engines[0].heal()
        wait_for(lambda: served_by(endpoint) == "east")
