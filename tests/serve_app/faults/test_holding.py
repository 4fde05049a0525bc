"""Requests that wait while every site is full."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.fakes.engine.faults import Fault
from tests.fakes.engine.handle import Engine
from tests.serve_app.asking import CHAT, Answer, metric, post, sent
from tests.serve_app.conftest import Endpoint, serving
from tests.serve_app.faults.fleets import in_order, requests, with_keys
from tests.serve_app.waiting import wait_for

ONE_AT_A_TIME: dict[str, Any] = {"max_load": 1, "deadline_s": 60}


def held(endpoint: Endpoint) -> float:
    return metric(endpoint, "rayfleet_held_requests")


def ask(endpoint: Endpoint, tenant: str, number: int = 0) -> Answer:
    return post(endpoint, CHAT, key=f"sk-{tenant}", headers={"x-request-id": f"{tenant}{number}"}, max_tokens=2)


def test_tenants_take_turns(three_engines: list[Engine], engines: list[Engine]) -> None:
    east = engines[0]
    east.behave(max_num_seqs=1, otherwise=Fault(head_after_s=0.5))
    spec = with_keys(in_order(three_engines[:1], hold=ONE_AT_A_TIME), greedy={}, modest={})
    with serving(spec) as endpoint, ThreadPoolExecutor(10) as pool:
        east.plan(Fault(head_after_s=4))
        asked = [pool.submit(ask, endpoint, "greedy", 0)]
        wait_for(lambda: requests(east) == [1])
        asked += [pool.submit(ask, endpoint, "greedy", number) for number in range(1, 6)]
        wait_for(lambda: held(endpoint) == 5)
        asked += [pool.submit(ask, endpoint, "modest", number) for number in range(2)]
        wait_for(lambda: held(endpoint) == 7)
        answers = [each.result() for each in asked]
    assert {answer.status for answer in answers} == {200}
    assert all(int(answer.headers["x-rayfleet-queue-ms"]) > 0 for answer in answers[1:])
    tenants = [request.headers["x-request-id"][:-1] for request in east.seen().requests]
    assert tenants[0] == "greedy"
    assert tenants[1:5].count("modest") == 2, "not behind the five that came before"
    assert east.seen().most_running == 1


def test_who_waits_too_long_is_told_when_to_come_back(three_engines: list[Engine], engines: list[Engine]) -> None:
    east = engines[0]
    east.behave(max_num_seqs=1)
    hold = {**ONE_AT_A_TIME, "deadline_s": 1}
    with serving(in_order(three_engines[:1], hold=hold)) as endpoint, ThreadPoolExecutor(1) as pool:
        east.plan(Fault(head_after_s=5))
        first = pool.submit(post, endpoint, CHAT)
        wait_for(lambda: requests(east) == [1])
        answer = post(endpoint, CHAT)
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert "full" in answer.error["message"]
        assert first.result().status == 200
        assert metric(endpoint, 'rayfleet_requests_total{model="chat",outcome="held_out",site=""}') == 1
    assert requests(east) == [1]


def test_the_queue_is_bounded_in_all_and_per_tenant(three_engines: list[Engine], engines: list[Engine]) -> None:
    east = engines[0]
    east.behave(max_num_seqs=1)
    hold = {**ONE_AT_A_TIME, "max_waiting": 3, "max_waiting_per_tenant": 2}
    spec = with_keys(in_order(three_engines[:1], hold=hold), greedy={}, modest={})
    with serving(spec) as endpoint, ThreadPoolExecutor(4) as pool:
        east.plan(Fault(head_after_s=6))
        waiting = [pool.submit(ask, endpoint, "greedy")]
        wait_for(lambda: requests(east) == [1])
        waiting += [pool.submit(ask, endpoint, "greedy") for _ in range(2)]
        wait_for(lambda: held(endpoint) == 2)
        assert ask(endpoint, "greedy").status == 429
        waiting.append(pool.submit(ask, endpoint, "modest"))
        wait_for(lambda: held(endpoint) == 3)
        refused = ask(endpoint, "modest")
        assert (refused.status, "retry-after" in refused.headers) == (429, True)
        assert "so is the queue" in refused.error["message"]
        assert {each.result().status for each in waiting} == {200}


def test_a_client_that_leaves_the_queue_is_forgotten(three_engines: list[Engine], engines: list[Engine]) -> None:
    east = engines[0]
    east.behave(max_num_seqs=1)
    with serving(in_order(three_engines[:1], hold=ONE_AT_A_TIME)) as endpoint, ThreadPoolExecutor(2) as pool:
        east.plan(Fault(head_after_s=4))
        first = pool.submit(post, endpoint, CHAT)
        wait_for(lambda: requests(east) == [1])
        with sent(endpoint, CHAT):
            wait_for(lambda: held(endpoint) == 1)
        wait_for(lambda: held(endpoint) == 0)
        assert first.result().status == 200
    assert requests(east) == [1]


def test_a_cut_stream_goes_before_those_who_wait(three_engines: list[Engine], engines: list[Engine]) -> None:
    east, west = engines[:2]
    for engine in (east, west):
        engine.behave(max_num_seqs=1)
    spec = with_keys(in_order(three_engines[:2], hold=ONE_AT_A_TIME), others={})
    with serving(spec) as endpoint, ThreadPoolExecutor(5) as pool:
        undisturbed = post(endpoint, CHAT, stream=True).text
        east.forget()
        east.behave(max_num_seqs=1, token_s=0.1)
        cut = pool.submit(post, endpoint, CHAT, stream=True, headers={"x-request-id": "cut"})
        wait_for(lambda: requests(east) == [1])
        west.plan(Fault(head_after_s=5))
        asked = [pool.submit(ask, endpoint, "others", 0)]
        wait_for(lambda: requests(west) == [1])
        asked += [pool.submit(ask, endpoint, "others", number) for number in (1, 2, 3)]
        wait_for(lambda: held(endpoint) == 3)
        east.down()
        assert (cut.result().text, cut.result().whole) == (undisturbed, True)
        assert {each.result().status for each in asked} == {200}
    assert [request.headers["x-request-id"] for request in west.seen().requests][:2] == ["others0", "cut"]


def test_nobody_waits_behind_those_who_wait_for_another_place(
    three_engines: list[Engine], engines: list[Engine]
) -> None:
    east, west = engines[:2]
    for engine, busy_s in ((east, 10), (west, 2)):
        engine.behave(max_num_seqs=1)
        engine.plan(Fault(head_after_s=busy_s))

    def pinned(site: str) -> Answer:
        return post(endpoint, CHAT, headers={"x-rayfleet-site-only": site}, max_tokens=2)

    with serving(in_order(three_engines[:2], hold=ONE_AT_A_TIME)) as endpoint, ThreadPoolExecutor(80) as pool:
        running = [pool.submit(pinned, "east"), pool.submit(pinned, "west")]
        wait_for(lambda: requests(east, west) == [1, 1])
        many = [pool.submit(pinned, "east") for _ in range(70)]
        wait_for(lambda: held(endpoint) == 70)
        assert pinned("west").status == 200
        assert not any(each.done() for each in many)
        assert {each.result().status for each in (*running, *many)} == {200}


def test_a_place_that_comes_free_elsewhere_is_taken(three_engines: list[Engine], engines: list[Engine]) -> None:
    for engine in engines[:2]:
        engine.behave(max_num_seqs=1)
        engine.plan(Fault(head_after_s=5 if engine is engines[0] else 2))
    with serving(in_order(three_engines[:2], hold=ONE_AT_A_TIME)) as endpoint, ThreadPoolExecutor(3) as pool:
        running = [pool.submit(post, endpoint, CHAT) for _ in range(2)]
        wait_for(lambda: requests(*engines[:2]) == [1, 1])
        answer = post(endpoint, CHAT)
        assert answer.headers["x-rayfleet-site"] == "west"
        assert {each.result().status for each in running} == {200}
