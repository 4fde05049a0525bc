"""A metadata server and its reader, of each provider in turn."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from clusters.notices.gcp import GcpNotices
from clusters.notices.notice import NoticeReader, NoticeSource
from clusters.notices.watching import reader
from tests.fakes.metadata import FakeAws, FakeAzure, FakeGcp, FakeMetadata

FAKES: Mapping[NoticeSource, Callable[[], FakeMetadata]] = {
    NoticeSource.AWS: FakeAws,
    NoticeSource.GCP: FakeGcp,
    NoticeSource.AZURE: FakeAzure,
}


@dataclass(frozen=True)
class Machine:
    """What a node of one provider has: its metadata server, and the reader that asks that."""

    server: FakeMetadata
    reader: NoticeReader


@pytest.fixture(params=FAKES, ids=str)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with FAKES[request.param]() as server:
        asks = reader(request.param, server.url)
        yield Machine(server, GcpNotices(server.url, wait_s=1) if isinstance(asks, GcpNotices) else asks)
