"""Watching for notices, for ever: which reader, how often, and what is said of a metadata server that is away."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping

from clusters.notices.aws import AwsNotices
from clusters.notices.azure import AzureNotices
from clusters.notices.gcp import GcpNotices
from clusters.notices.metadata import MetadataError
from clusters.notices.notice import Notice, NoticeReader, NoticeSource, news

READERS: Mapping[NoticeSource, Callable[..., NoticeReader]] = {
    NoticeSource.AWS: AwsNotices,
    NoticeSource.GCP: GcpNotices,
    NoticeSource.AZURE: AzureNotices,
}
MAX_PAUSE_S = 10.0
"""A third of the shortest notice there is."""


def reader(source: NoticeSource, url: str | None = None) -> NoticeReader:
    """`url` is that of the metadata server; None is the provider's own. Raises ValueError for the source `none`."""
    if source not in READERS:
        raise ValueError(f"{source} has no metadata server")
    return READERS[source](url) if url else READERS[source]()


async def watch(reader: NoticeReader, logger: logging.Logger) -> AsyncIterator[Notice]:
    """Each notice that is news. A metadata server that is away is none: it is logged once, and asked again."""
    known: Notice | None = None
    failures = 0
    while True:
        try:
            read = await reader.read()
        except MetadataError as error:
            failures += 1
            if failures == 1:
                logger.warning("nothing is known of when this node is taken back: %s", error)
        else:
            if failures:
                logger.info("the metadata server answers again, after %d failures", failures)
            failures = 0
            if notice := news(known, read):
                known = notice
                yield notice
        await asyncio.sleep(pause_s(reader.interval_s, failures))


def pause_s(interval_s: float, failures: int) -> float:
    """Doubles with each failure in a row."""
    return min(interval_s * 2.0 ** min(failures, 10), MAX_PAUSE_S)
