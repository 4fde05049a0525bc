"""The fault server's faults are what they say."""

import gzip
import http.client
import json
import socket
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.fakes.engine.faults import (
    CLOSED,
    NEVER_ANSWERS,
    RESET,
    Behaviour,
    Closing,
    End,
    Fault,
    Framing,
    too_many,
)
from tests.fakes.engine.handle import Engine
from tests.serve_app.fake_engine.client import (
    CHAT,
    LONG,
    MESSAGES,
    Answer,
    chat,
    complete,
    connected,
    partial_chat,
    post,
    send,
    state,
)
from tests.serve_app.waiting import wait_for

LIST_MODELS = b"GET /models/chat/v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer site-token\r\n\r\n"


def test_planned_faults_come_once_and_only_where_they_are_meant(engine: Engine) -> None:
    engine.plan(too_many("7"), Fault(status=500), replace(too_many(), only="/v1/completions"))
    first, second, third = (chat(engine) for _ in range(3))
    assert (first.status, first.headers["retry-after"], second.status, third.status) == (429, "7", 500, 200)
    refused = complete(engine, "the sea")
    assert (refused.status, "retry-after" in refused.headers) == (429, False)
    assert [received.status for received in engine.seen().requests] == [429, 500, 200, 429]


def test_always_is_for_every_request(engine: Engine) -> None:
    engine.always(Fault(status=503, page="<h1>no</h1>"))
    assert {(answer.status, answer.body) for answer in (chat(engine) for _ in range(3))} == {(503, b"<h1>no</h1>")}


def test_before_the_head_it_resets_closes_or_stays_silent(engine: Engine) -> None:
    engine.plan(RESET, CLOSED, NEVER_ANSWERS)
    with pytest.raises(ConnectionResetError):
        chat(engine)
    with pytest.raises(http.client.RemoteDisconnected):
        chat(engine)
    with pytest.raises(TimeoutError), connected(engine, timeout_s=0.5) as connection:
        send(connection, CHAT, messages=MESSAGES)
    wait_for(lambda: engine.seen().left == 1)
    assert [received.outcome for received in engine.seen().requests] == ["broken", "broken", "left"]


def test_a_stream_sends_its_head_long_before_its_first_token(engine: Engine) -> None:
    engine.plan(Fault(first_token_s=2, token_s=0.05))
    with connected(engine) as connection:
        body = json.dumps({"messages": MESSAGES, "stream": True, **LONG, "max_tokens": 11})
        began = time.monotonic()
        connection.request("POST", CHAT, body, {"authorization": "Bearer site-token"})
        response = connection.getresponse()
        assert engine.seen().tokens == 0
        response.readline()
        assert time.monotonic() - began >= 2
        response.read()
        assert time.monotonic() - began >= 2.5


def test_a_stream_is_reset_after_its_tokens(engine: Engine) -> None:
    engine.plan(Fault(end=End.RESET, after=3))
    with connected(engine) as connection:
        body = json.dumps({"messages": MESSAGES, "stream": True, **LONG, "return_token_ids": True})
        connection.request("POST", CHAT, body, {"authorization": "Bearer site-token"})
        response = connection.getresponse()
        received: list[bytes] = []
        with pytest.raises(ConnectionResetError):
            received.extend(iter(response.read1, b""))
    assert len(Answer(200, {}, b"".join(received)).tokens) == 3


def test_a_stream_stalls_after_its_tokens_until_the_client_leaves(engine: Engine) -> None:
    engine.plan(Fault(end=End.STALL, after=3))
    with pytest.raises(TimeoutError), connected(engine, timeout_s=2) as connection:
        send(connection, CHAT, messages=MESSAGES, stream=True, **LONG)
    wait_for(lambda: engine.seen().running == 0)
    (received,) = engine.seen().requests
    assert (received.outcome, received.tokens, engine.seen().tokens) == ("left", 3, 3)


def test_a_stream_is_cut_within_an_event(engine: Engine) -> None:
    engine.plan(Fault(end=End.MID_EVENT, after=3))
    cut = partial_chat(engine, return_token_ids=True)
    assert len(cut.tokens) == 3
    assert cut.body.rpartition(b"\n\n")[2].startswith(b'data: {"id"')


def test_a_stream_goes_on_after_a_malformed_event(engine: Engine) -> None:
    undisturbed = chat(engine, stream=True)
    engine.forget()
    engine.plan(Fault(end=End.MALFORMED, after=3))
    events = chat(engine, stream=True).body.split(b"\n\n")
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(events.pop(4).removeprefix(b"data: "))
    assert len(events) == len(undisturbed.body.split(b"\n\n"))


@pytest.mark.parametrize("after", [None, 3])
def test_a_stream_ends_without_done(engine: Engine, after: int | None) -> None:
    engine.plan(Fault(end=End.NO_DONE, after=after))
    answer = chat(engine, stream=True, return_token_ids=True)
    assert b"[DONE]" not in answer.body
    assert len(answer.tokens) == (200 if after is None else after)


def test_the_engine_fails_by_an_event_or_by_a_500(engine: Engine) -> None:
    engine.plan(Fault(end=End.ERROR, after=3), Fault(end=End.ERROR))
    *_, error, done, _ = chat(engine, stream=True).body.split(b"\n\n")
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == 500
    assert done == b"data: [DONE]"
    assert chat(engine).status == 500


def test_a_content_filter_ends_the_text(engine: Engine) -> None:
    engine.plan(*[Fault(end=End.FILTER, after=3)] * 2)
    whole, streamed = chat(engine).json, chat(engine, stream=True)
    assert whole["choices"][0]["finish_reason"] == "content_filter"
    assert whole["usage"]["completion_tokens"] == 3
    assert streamed.events[-1]["choices"][0]["finish_reason"] == "content_filter"


def test_a_body_is_shorter_than_its_length(engine: Engine) -> None:
    engine.plan(Fault(end=End.CUT, after=1))
    with pytest.raises(http.client.IncompleteRead):
        chat(engine)


def test_a_body_is_packed_and_padded(engine: Engine) -> None:
    plain = chat(engine).json["choices"]
    engine.plan(Fault(gzip=True, padding=2**20))
    answer = chat(engine)
    assert answer.headers["content-encoding"] == "gzip"
    unpacked = json.loads(gzip.decompress(answer.body))
    assert (len(unpacked["padding"]), unpacked["choices"]) == (2**20, plain)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("framing", list(Framing))
def test_every_framing_carries_the_same(engine: Engine, framing: Framing, stream: bool) -> None:
    plain = chat(engine, stream=stream).body
    engine.forget()
    engine.plan(Fault(framing=framing, piece=50))
    assert chat(engine, stream=stream).body == plain


@pytest.mark.parametrize(
    ("closing", "announced", "answers"),
    [(Closing.KEEP, False, 2), (Closing.ANNOUNCED, True, 1), (Closing.SILENT, False, 1), (Closing.ON_NEXT, False, 1)],
)
def test_a_connection_closes_as_told(engine: Engine, closing: Closing, announced: bool, answers: int) -> None:
    engine.plan(Fault(closing=closing))
    received = b""
    with socket.create_connection(("127.0.0.1", engine.port), timeout=60) as client:
        client.sendall(LIST_MODELS)
        while not received.endswith(b"}"):
            received += client.recv(2**16)
        if closing in (Closing.KEEP, Closing.ON_NEXT):
            client.sendall(LIST_MODELS)
        client.shutdown(socket.SHUT_WR)
        while more := client.recv(2**16):
            received += more
    assert received.count(b"HTTP/1.1 200") == answers
    assert (b"connection: close" in received) is announced


def test_hints_come_before_the_head(engine: Engine) -> None:
    engine.plan(Fault(interim=2, closing=Closing.SILENT))
    with socket.create_connection(("127.0.0.1", engine.port), timeout=60) as client:
        client.sendall(LIST_MODELS)
        received = client.makefile("rb").read()
    assert [head.split(b" ")[1] for head in received.split(b"\r\n\r\n")[:-1]] == [b"103", b"103", b"200"]


# The site


def test_the_state_tells_the_truth_or_lies(engine: Engine) -> None:
    engine.behave(max_num_seqs=2, otherwise=NEVER_ANSWERS)
    clients = [socket.create_connection(("127.0.0.1", engine.port)) for _ in range(3)]
    body = json.dumps({"model": "chat", "messages": MESSAGES}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nauthorization: Bearer site-token\r\ncontent-length: {len(body)}\r\n\r\n"
    for client in clients:
        client.sendall(head.encode() + body)
    wait_for(lambda: engine.seen().waiting == 1)
    placement, _ = state(engine)["placements"]
    assert (placement["running"], placement["waiting"], placement["capacity"]) == (2, 1, 2)
    engine.behave(claims={"running": 0, "waiting": 0})
    assert state(engine)["placements"][0]["running"] == 0
    for client in clients:
        client.close()
    wait_for(lambda: engine.seen().running == engine.seen().waiting == engine.seen().connections == 0)
    seen = engine.seen()
    assert (seen.left, seen.most_running, seen.state_readings) == (3, 2, 2)


def test_the_state_is_unreachable_while_data_flows(engine: Engine) -> None:
    engine.behave(state=Fault(status=404))
    assert "error" in state(engine)
    engine.behave(state=RESET)
    with pytest.raises(ConnectionResetError):
        state(engine)
    assert chat(engine).status == 200


def test_a_site_goes_down_up_and_flaps(engine: Engine) -> None:
    engine.down()
    with pytest.raises(ConnectionRefusedError):
        chat(engine)
    engine.up()
    assert chat(engine).status == 200
    engine.flap(down_s=0.2, up_s=0.2, for_s=0.7)
    refused = []
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        with socket.socket() as client:
            refused.append(client.connect_ex(("127.0.0.1", engine.port)) != 0)
        time.sleep(0.02)
    changes = sum(before != after for before, after in pairwise(refused))
    assert changes >= 2
    assert chat(engine).status == 200


def test_a_killed_engine_comes_back_on_its_port_with_its_behaviour() -> None:
    with Engine("north", behaviour=Behaviour(max_model_len=77)) as engine:
        port = engine.port
        engine.kill()
        with pytest.raises(ConnectionRefusedError):
            chat(engine)
        engine.start()
        assert engine.port == port
        assert post(engine, "/models/chat/tokenize", prompt="the").json["max_model_len"] == 77


def test_a_paused_engine_accepts_and_stays_silent_until_it_is_resumed() -> None:
    with Engine("north") as engine:
        engine.pause()
        with pytest.raises(TimeoutError), connected(engine, timeout_s=0.5) as connection:
            send(connection, CHAT, messages=MESSAGES)
        engine.resume()
        assert chat(engine).status == 200
