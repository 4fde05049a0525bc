"""Who tells a pool's nodes that they are taken back: only someone who is there, and of spot nodes always someone."""

from collections.abc import Iterator

from clusters.fleet_file.document import Mistake
from clusters.fleet_file.draft import Part
from clusters.notices.notice import NoticeSource
from clusters.spec import Market, Provider

CLOUDS = (Provider.AWS, Provider.GCP)


def misheard(site: Part, pool: Part) -> Iterator[Mistake]:
    """Notices that never come, and spot nodes on which nobody would hear them."""
    provider, market, notices = site["provider"], pool["market"], pool["notices"]
    if market in (Market.RESERVED, Market.ON_DEMAND):
        if notices not in (None, NoticeSource.NONE):
            yield pool.mistake("notices", "only spot nodes are taken back", "remove it, or write `market: spot`")
    elif market and provider in CLOUDS and notices not in (None, NoticeSource.NONE, provider):
        message = f"machines of {provider} have no metadata server of {notices}"
        yield pool.mistake("notices", message, "remove it: the provider's own is the default")
    elif market and provider == Provider.ONPREM and pool.lacks("notices"):
        message = "missing: on spot nodes of an onprem site, nobody knows whom to ask"
        yield pool.mistake("notices", message, "add `notices: azure` (or aws, gcp), or `notices: none`")
