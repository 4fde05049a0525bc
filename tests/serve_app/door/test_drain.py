"""Leaving without failing a request."""

import threading

import pytest

from serve_app.door.limits import Limits
from tests.serve_app.door.conftest import Running, running
from tests.serve_app.waiting import wait_for

GET = b"GET /hot HTTP/1.1\r\nHost: a\r\n\r\n"
HELD = b"GET /hot/held HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_draining_door_accepts_until_another_does(door: Running) -> None:
    covered = threading.Event()
    drained = door.start(door.door.drain(20, covered.is_set, grace_s=20, idle_grace_s=0.3))
    with door.connect(GET) as client:
        status, headers, _ = client.answer()
        assert (status, headers.get("connection")) == (200, None)
        covered.set()
        wait_for(lambda: door.door.draining)
        client.send(GET)
        assert client.answer()[1]["connection"] == "close"
        assert client.is_closed()
    drained.result(20)
    with door.connect(GET) as late:
        late.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            late.answer()


def test_a_draining_door_waits_no_longer_than_its_grace_for_another(door: Running) -> None:
    door.start(door.door.drain(20, lambda: False, grace_s=0.3)).result(10)
    assert door.door.draining


def test_running_answers_finish_and_idle_connections_are_closed() -> None:
    with running(Limits(keep_alive_s=1000)) as door:
        with door.connect(HELD) as busy, door.connect(GET) as idle, door.connect(HELD) as streaming:
            assert idle.answer()[0] == 200
            held, stream = door.held(), door.held(1)
            door.soon(stream.sink.start, 200, [], None)
            door.soon(stream.sink.write, b"a")
            assert streaming.head()[1].get("connection") is None
            drained = door.start(door.door.drain(30, lambda: True, idle_grace_s=0.5))
            assert idle.is_closed()
            assert not drained.done()
            door.soon(stream.sink.finish)
            assert list(streaming.chunks()) == [b"a"]
            assert streaming.is_closed()
            door.soon(held.sink.start, 200, [], 2)
            door.soon(held.sink.write, b"ok")
            door.soon(held.sink.finish)
            status, headers, body = busy.answer()
            assert (status, headers["connection"], body) == (200, "close", b"ok")
        drained.result(20)
        assert (held.told, stream.told) == ([], [])


def test_what_still_runs_at_the_deadline_is_broken_off(door: Running) -> None:
    with door.connect(HELD) as client:
        held = door.held()
        door.start(door.door.drain(0.5, lambda: True)).result(20)
        assert client.is_closed()
        wait_for(lambda: held.told == ["left"])
