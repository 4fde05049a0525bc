"""What only one provider has."""

import time

import pytest

from clusters.notices.aws import AwsNotices
from clusters.notices.azure import FIRST_TIMEOUT_S, AzureNotices
from clusters.notices.gcp import GcpNotices
from clusters.notices.metadata import MetadataError
from tests.fakes.metadata import FakeAws, FakeAzure, FakeGcp, Reply


async def test_aws_is_asked_with_one_token_for_many_readings() -> None:
    with FakeAws() as server:
        reader = AwsNotices(server.url)
        for _ in range(3):
            await reader.read()
    assert [asked.method for asked in server.asked] == ["PUT", "GET", "GET", "GET"]


async def test_a_token_that_counts_no_more_is_replaced_and_the_notice_heard() -> None:
    with FakeAws() as server:
        reader = AwsNotices(server.url)
        await reader.read()
        server.tokens.clear()
        server.take_back(60)
        assert len(await reader.read()) == 1
        assert len(server.tokens) == 1


async def test_a_token_is_renewed_long_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeAws() as server:
        reader = AwsNotices(server.url)
        await reader.read()
        later = time.monotonic() + 4 * 3600
        monkeypatch.setattr("clusters.notices.aws.time.monotonic", lambda: later)
        await reader.read()
        assert len(server.tokens) == 2


async def test_aws_that_refuses_every_token_is_asked_for_two_and_no_more() -> None:
    with FakeAws() as server:
        reader = AwsNotices(server.url)
        await reader.read()
        server.asked.clear()
        server.fault = Reply(401)
        with pytest.raises(MetadataError, match="401"):
            await reader.read()
    assert [asked.method for asked in server.asked] == ["GET", "PUT"]


@pytest.mark.parametrize(("action", "most_s"), [("terminate", 60), ("stop", 60), ("hibernate", 0.1)])
async def test_only_hibernating_begins_at_once(action: str, most_s: float) -> None:
    with FakeAws() as server:
        server.take_back(60, action)
        before = time.time()
        (notice,) = await AwsNotices(server.url).read()
    assert notice.ends_at - time.time() <= most_s
    assert notice.ends_at >= before + (0 if action == "hibernate" else 50)
    assert action in notice.message


@pytest.mark.parametrize(
    "action", [{"action": "noop", "time": "2026-01-01T00:00:00Z"}, {"action": "stop", "time": "?"}]
)
async def test_an_action_that_ec2_does_not_document_is_no_notice(action: dict[str, str]) -> None:
    with FakeAws() as server:
        server.action = action
        with pytest.raises(MetadataError, match="no instance action"):
            await AwsNotices(server.url).read()


async def test_gcp_answers_in_the_middle_of_waiting() -> None:
    with FakeGcp() as server:
        reader = GcpNotices(server.url, wait_s=30)
        await reader.read()
        started = time.monotonic()
        timer = server.after(0.5)
        assert len(await reader.read()) == 1
        timer.join()
    assert time.monotonic() - started < 15


async def test_a_change_between_two_readings_is_not_waited_for() -> None:
    with FakeGcp() as server:
        reader = GcpNotices(server.url, wait_s=30)
        await reader.read()
        server.take_back(30)
        started = time.monotonic()
        assert len(await reader.read()) == 1
    assert time.monotonic() - started < 15


async def test_only_google_itself_may_say_that_a_machine_is_preempted() -> None:
    with FakeGcp() as server:
        server.fault = Reply(200, b"TRUE")
        with pytest.raises(MetadataError, match="not Google's server"):
            await GcpNotices(server.url).read()


@pytest.mark.parametrize(
    ("event", "notices"), [("NONE", 0), ("MIGRATE_ON_HOST_MAINTENANCE", 0), ("TERMINATE_ON_HOST_MAINTENANCE", 1)]
)
async def test_maintenance_counts_where_it_ends_the_machine(event: str, notices: int) -> None:
    with FakeGcp() as server:
        server.put("maintenance-event", event)
        assert len(await GcpNotices(server.url, wait_s=1).read()) == notices


async def test_a_preemption_is_heard_though_maintenance_can_not_be_read() -> None:
    with FakeGcp() as server:
        del server.values["maintenance-event"]
        server.take_back(30)
        assert len(await GcpNotices(server.url, wait_s=1).read()) == 1


@pytest.mark.parametrize(
    ("kind", "notices"), [("Preempt", 1), ("Terminate", 1), ("Freeze", 0), ("Reboot", 0), ("Redeploy", 0)]
)
async def test_events_count_that_take_the_machine_away(kind: str, notices: int) -> None:
    with FakeAzure() as server:
        server.take_back(30, kind)
        assert len(await AzureNotices(server.url).read()) == notices


async def test_events_of_other_machines_of_the_scale_set_are_theirs() -> None:
    with FakeAzure() as server:
        server.take_back(30, vm="pool_2")
        server.take_back(30, vm="pool_11")
        assert await AzureNotices(server.url).read() == ()
        server.take_back(30, vm="POOL_1")
        assert len(await AzureNotices(server.url).read()) == 1


async def test_an_event_that_has_begun_ends_now() -> None:
    with FakeAzure() as server:
        server.take_back(0, status="Started")
        (notice,) = await AzureNotices(server.url).read()
    assert notice.ends_at <= time.time()


async def test_terminating_may_leave_a_quarter_of_an_hour() -> None:
    with FakeAzure() as server:
        server.take_back(840, "Terminate")
        (notice,) = await AzureNotices(server.url).read()
    assert 800 < notice.ends_at - time.time() <= 840


async def test_azure_is_only_ever_read_and_its_first_answer_is_waited_for() -> None:
    with FakeAzure() as server:
        server.take_back(30)
        reader = AzureNotices(server.url)
        assert reader._timeout_s == FIRST_TIMEOUT_S > 120
        await reader.read()
        await reader.read()
        assert reader._timeout_s < 10
    assert {asked.method for asked in server.asked} == {"GET"}


async def test_a_time_that_is_none_is_no_notice() -> None:
    with FakeAzure() as server:
        server.take_back(30)
        server.events[0]["NotBefore"] = "soon"
        with pytest.raises(MetadataError, match="soon"):
            await AzureNotices(server.url).read()
