"""Azure: Preempt and Terminate among the scheduled events of this VM. At least 30 seconds for spot VMs.

Events are not acknowledged (`StartRequests`): Azure would begin at once, and for every VM that the event names. All of
the time until `NotBefore` is for replacements to start and streams to end.
"""

from email.utils import parsedate_to_datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_pascal

from clusters.notices.metadata import TIMEOUT_S, Answer, MetadataError, ask
from clusters.notices.notice import Notice, own_time

ENDS = frozenset(("Preempt", "Terminate"))
LONGEST_S = 15 * 60.0
"""What Azure lets people set for Terminate; Preempt has less."""
FIRST_TIMEOUT_S = 150.0
"""The first request of a VM switches the service on for it, and may take two minutes."""

HEADERS = {"Metadata": "true"}
NAME_VERSION, EVENTS_VERSION = "2021-02-01", "2020-07-01"


class ScheduledEvent(BaseModel):
    """`not_before` is empty once it has begun."""

    model_config = ConfigDict(alias_generator=to_pascal)

    event_type: str
    resources: tuple[str, ...] = Field(max_length=10_000)
    event_status: str
    not_before: str = ""


class ScheduledEvents(BaseModel):
    """Of all VMs of the same scale set or availability set."""

    model_config = ConfigDict(alias_generator=to_pascal)

    events: tuple[ScheduledEvent, ...] = Field(max_length=10_000)


class AzureNotices:
    """Asks once a second, as Azure advises: a spot VM has 30 seconds."""

    interval_s = 1.0

    def __init__(self, url: str = "http://169.254.169.254"):
        self._url = f"{url}/metadata"
        self._name = ""
        self._timeout_s = FIRST_TIMEOUT_S

    async def read(self) -> tuple[Notice, ...]:
        if not self._name:
            query = {"api-version": NAME_VERSION, "format": "text"}
            named = (await ask(f"{self._url}/instance/compute/name", HEADERS, query=query)).expect_ok()
            if not named.text:
                raise MetadataError(f"{named.url} answers with no name, so events can't be told from other VMs'")
            self._name = named.text
        query = {"api-version": EVENTS_VERSION}
        answer = await ask(f"{self._url}/scheduledevents", HEADERS, query=query, timeout_s=self._timeout_s)
        found = endings(answer.expect_ok(), self._name)
        self._timeout_s = TIMEOUT_S
        return found


def endings(answer: Answer, name: str) -> tuple[Notice, ...]:
    """Of the VM of that name. Raises MetadataError where Azure's answer is not as it is documented."""
    try:
        events = ScheduledEvents.model_validate_json(answer.text).events
    except ValidationError as error:
        raise MetadataError(f"{answer.url} answers with no scheduled events: {error.errors()[0]['msg']}") from error
    # Azure's names differ by more than case.
    ours = (event for event in events if name.lower() in (resource.lower() for resource in event.resources))
    return tuple(
        Notice(_ends_at(event, answer), f"Azure: {event.event_type} of this VM is {event.event_status.lower()}")
        for event in ours
        if event.event_type in ENDS
    )


def _ends_at(event: ScheduledEvent, answer: Answer) -> float:
    if not event.not_before:
        return answer.at
    try:
        stated = parsedate_to_datetime(event.not_before).timestamp()
    except ValueError as error:
        raise MetadataError(f"{answer.url} has an event not before {event.not_before[:80]!r}, no time") from error
    return own_time(stated, answer.theirs, answer.at, LONGEST_S)
