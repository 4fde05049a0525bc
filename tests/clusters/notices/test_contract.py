"""What holds for every provider's reader, against a server that speaks that provider's protocol."""

import gzip
import logging
import time
from collections.abc import AsyncIterator

import pytest

from clusters.notices.metadata import MetadataError, ask
from clusters.notices.notice import Notice
from clusters.notices.watching import watch
from tests.clusters.notices.conftest import Machine
from tests.fakes.metadata import Reply

IN_S = 25
"""What every provider still has when it says so."""


async def test_no_notice_as_a_rule(machine: Machine) -> None:
    assert list(await machine.reader.read()) == []
    assert list(await machine.reader.read()) == []


async def test_a_machine_that_is_taken_back_is_heard_of(machine: Machine) -> None:
    await machine.reader.read()
    machine.server.take_back(IN_S)
    (notice,) = await machine.reader.read()
    assert IN_S - 5 < notice.ends_at - time.time() <= 31
    assert notice.message


async def test_what_was_said_before_the_watcher_started_counts(machine: Machine) -> None:
    machine.server.take_back(IN_S)
    assert len(await machine.reader.read()) == 1


@pytest.mark.parametrize("ahead_s", [-7200, 7200])
async def test_a_clock_that_is_hours_wrong_does_not_move_the_end(machine: Machine, ahead_s: float) -> None:
    machine.server.clock_ahead_s = ahead_s
    machine.server.take_back(IN_S)
    (notice,) = await machine.reader.read()
    assert IN_S - 5 < notice.ends_at - time.time() <= 31


async def test_an_end_is_never_far_away_whatever_clocks_say(machine: Machine) -> None:
    machine.server.clock_ahead_s = 86_400
    machine.server.tells_time = False
    machine.server.take_back(IN_S)
    (notice,) = await machine.reader.read()
    assert notice.ends_at - time.time() <= 900


async def test_a_server_that_is_away_is_no_notice(machine: Machine) -> None:
    machine.server.stop()
    with pytest.raises(MetadataError, match=r"127\.0\.0\.1"):
        await machine.reader.read()


async def test_a_notice_is_heard_once_the_server_is_back(machine: Machine) -> None:
    await machine.reader.read()
    machine.server.stop()
    machine.server.take_back(IN_S)
    with pytest.raises(MetadataError):
        await machine.reader.read()
    machine.server.start()
    assert len(await machine.reader.read()) == 1


NONSENSE = {
    "html": Reply(200, b"<html>Welcome to this network</html>"),
    "Google's html": Reply(200, b"<html>TRUE</html>", {"Metadata-Flavor": "Google"}),
    "nothing": Reply(200, b"", {"Metadata-Flavor": "Google"}),
    "JSON of another kind": Reply(200, b'{"action": "terminate", "Events": 3}', {"Metadata-Flavor": "Google"}),
    "bytes": Reply(200, b"\xff\xfe\x00", {"Metadata-Flavor": "Google"}),
    "compressed": Reply(200, gzip.compress(b"TRUE"), {"Metadata-Flavor": "Google", "Content-Encoding": "gzip"}),
    "elsewhere": Reply(302, b"", {"Location": "http://127.0.0.1:1/", "Metadata-Flavor": "Google"}),
    "forbidden": Reply(403, b"", {"Metadata-Flavor": "Google"}),
    "unavailable": Reply(503, b"try again", {"Metadata-Flavor": "Google"}),
    "too long": Reply(200, b"TRUE" * 2**20, {"Metadata-Flavor": "Google"}),
    "a head that is none": Reply(200, b"TRUE", {"X-Long": "x" * 100_000}),
}


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE.keys())
async def test_nonsense_is_no_notice(machine: Machine, reply: Reply) -> None:
    machine.server.fault = reply
    with pytest.raises(MetadataError):
        await machine.reader.read()
    machine.server.fault = None
    assert list(await machine.reader.read()) == [], "and the next reading is as good as any"


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE.keys())
async def test_nonsense_from_a_server_that_made_sense_is_no_notice(machine: Machine, reply: Reply) -> None:
    await machine.reader.read()
    machine.server.fault = reply
    with pytest.raises(MetadataError):
        await machine.reader.read()


async def test_a_server_that_drips_holds_nobody_up(machine: Machine) -> None:
    machine.server.fault = Reply(200, b"TRUE" * 100, {"Metadata-Flavor": "Google"}, drip_s=0.1)
    started = time.monotonic()
    with pytest.raises(MetadataError, match=r"within 0\.5 s"):
        await ask(machine.server.url, {}, timeout_s=0.5)
    assert time.monotonic() - started < 15, "a drip of 40 s"


async def test_proxies_of_the_environment_are_passed_by(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert list(await machine.reader.read()) == []


async def test_a_notice_that_stands_is_told_once_and_a_server_that_is_away_is_logged_once(
    machine: Machine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusters.notices.watching.MAX_PAUSE_S", 0.01)
    read = machine.reader.read
    course = iter(("", "", "away", "", "", "back", "taken", "", "", "enough"))

    async def in_a_bad_time() -> object:
        match next(course):
            case "away":
                machine.server.fault = Reply(503)
            case "back":
                machine.server.fault = None
            case "taken":
                machine.server.take_back(IN_S)
            case "enough":
                raise Enough
        return await read()

    monkeypatch.setattr(machine.reader, "read", in_a_bad_time)
    caplog.set_level(logging.INFO)
    told: list[Notice] = []
    with pytest.raises(Enough):
        await _collect(watch(machine.reader, logging.getLogger("test")), told)
    assert len(told) == 1
    assert [record.levelname for record in caplog.records if record.name == "test"] == ["WARNING", "INFO"]


class Enough(Exception):
    """Ends a watch that has no end."""


async def _collect(notices: AsyncIterator[Notice], told: list[Notice]) -> None:
    async for notice in notices:
        told.append(notice)  # noqa: PERF401
