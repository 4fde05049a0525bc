"""Clients that are slow, gone, or half there, while others are served."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.fakes.engine.faults import Fault
from tests.fakes.engine.handle import Engine
from tests.serve_app.asking import CHAT, hear, metric, post, sent
from tests.serve_app.conftest import KEY, UNRESENTFUL, Endpoint, serving
from tests.serve_app.faults.fleets import in_order, requests
from tests.serve_app.waiting import wait_for

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
LORISES = 200
HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n".encode()
BEGINNINGS = {"head": b"POST /v1/chat/comple", "body": HEAD + b"content-length: 100\r\n\r\n{"}


@pytest.fixture(scope="module")
def shared(three_engines: list[Engine]) -> Iterator[Endpoint]:
    with serving(in_order(three_engines, **UNRESENTFUL)) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(shared: Endpoint, engines: list[Engine]) -> Endpoint:
    return shared


def test_slow_lorises_keep_nobody_else_waiting_and_are_shown_the_door(
    endpoint: Endpoint, engines: list[Engine]
) -> None:
    undisturbed = hear(endpoint, CHAT)
    with ExitStack() as stack:
        lorises = [
            stack.enter_context(socket.create_connection(("127.0.0.1", endpoint.port), timeout=60))
            for _ in range(LORISES)
        ]
        for number, loris in enumerate(lorises):
            loris.sendall(BEGINNINGS["body" if number % 2 else "head"])
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert hear(endpoint, CHAT) == undisturbed
            slowest = max(slowest, time.monotonic() - began)
            for loris in lorises[1::2]:
                loris.sendall(b" ")
        assert slowest < 5
        assert [loris.recv(12) for loris in lorises[::2]] == [b"HTTP/1.1 408"] * (LORISES // 2)
        assert metric(endpoint, "rayfleet_open_connections") > 0
    assert requests(*engines) == [21, 0, 0]
    wait_for(lambda: metric(endpoint, "rayfleet_open_connections") < 10)


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize(
    "fault", [Fault(head_after_s=60), Fault(first_token_s=60), Fault(token_s=0.2)], ids=["head", "token", "stream"]
)
def test_a_client_that_is_gone_stops_its_engine(
    endpoint: Endpoint, engines: list[Engine], fault: Fault, how: str
) -> None:
    engines[0].plan(fault)
    with sent(endpoint, CHAT, stream=True, max_tokens=500) as client:
        wait_for(lambda: engines[0].seen().running == 1)
        if fault.token_s:
            assert client.recv(1024)
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    wait_for(lambda: engines[0].seen().left == 1 and engines[0].seen().running == 0)
    assert requests(*engines) == [1, 0, 0]


def test_a_half_closed_client_gets_its_answer(endpoint: Endpoint, engines: list[Engine]) -> None:
    with sent(endpoint, CHAT) as client:
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert b"HTTP/1.1 200 OK" in answer
    assert answer.endswith(b"}")


def test_idle_connections_cost_nobody_anything(endpoint: Endpoint, engines: list[Engine]) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", endpoint.port)))
        assert post(endpoint, CHAT).status == 200
