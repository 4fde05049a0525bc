"""Compute Engine: `instance/preempted`, which becomes TRUE about 30 seconds before the end, and
`instance/maintenance-event`, since no spot VM is migrated."""

from clusters.notices.metadata import TIMEOUT_S, Answer, MetadataError, ask
from clusters.notices.notice import Notice

NOTICE_S = 30.0
MAINTENANCE_S = 60.0
"""The shorter of the two that are documented: machines with GPUs have an hour, and nothing says which one it is."""

FLAVOR = {"Metadata-Flavor": "Google"}


class GcpNotices:
    """The server answers as soon as `preempted` changes, or after `wait_s`."""

    interval_s = 1.0
    """Bounds what a server costs that answers at once. What changed meanwhile is told by its etag."""

    def __init__(self, url: str = "http://metadata.google.internal", wait_s: float = 10):
        self._url = f"{url}/computeMetadata/v1/instance"
        self._wait_s = wait_s
        self._etag = "0"
        """None of the server's: it is answered at once."""

    async def read(self) -> tuple[Notice, ...]:
        preempted = await self._preempted()
        if preempted.text == "TRUE":
            return (Notice(preempted.at + NOTICE_S, "Compute Engine preempts this spot VM"),)
        maintenance = _said(await ask(f"{self._url}/maintenance-event", FLAVOR))
        match maintenance.text:
            case "NONE" | "MIGRATE_ON_HOST_MAINTENANCE":
                return ()
            case "TERMINATE_ON_HOST_MAINTENANCE":
                return (Notice(maintenance.at + MAINTENANCE_S, "Compute Engine ends this VM for maintenance"),)
        raise MetadataError(f"{maintenance.url} answers {maintenance.text[:80]!r}, which is no maintenance event")

    async def _preempted(self) -> Answer:
        query = {"wait_for_change": "true", "timeout_sec": f"{self._wait_s:.0f}", "last_etag": self._etag}
        url = f"{self._url}/preempted"
        answer = _said(await ask(url, FLAVOR, query=query, timeout_s=self._wait_s + TIMEOUT_S))
        if answer.text not in ("TRUE", "FALSE"):
            raise MetadataError(f"{url} answers {answer.text[:80]!r}, not TRUE or FALSE")
        self._etag = answer.headers.get("ETag", "0")
        return answer


def _said(answer: Answer) -> Answer:
    """Only Google's own server says so of itself: in many networks, something else answers by that name."""
    if answer.headers.get("Metadata-Flavor") != "Google":
        raise MetadataError(f"{answer.url} answers without `Metadata-Flavor: Google`, so it is not Google's server")
    return answer.expect_ok()
