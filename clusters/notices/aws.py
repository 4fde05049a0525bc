"""EC2: `spot/instance-action` of the instance metadata service, version 2. Two minutes, as a rule.

Rebalance recommendations are not read. They may come hours ahead of an interruption or without one, and those who
drained on them saw their nodes replaced every few minutes (aws-node-termination-handler, issues 141 and 458).
"""

import time
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ValidationError

from clusters.notices.metadata import Answer, MetadataError, ask
from clusters.notices.notice import Notice, own_time

NOTICE_S = 120.0
TOKEN_S = 6 * 3600
"""The longest that the service gives a token for."""


class InstanceAction(BaseModel):
    """The item, which is there only once EC2 has decided."""

    action: Literal["terminate", "stop", "hibernate"]
    time: AwareDatetime


class AwsNotices:
    """Asks as EC2 wants to be asked: with a session token, at least every 5 seconds."""

    interval_s = 2.0

    def __init__(self, url: str = "http://169.254.169.254"):
        self._url = url
        self._token = ""
        self._renew_at = 0.0

    async def read(self) -> tuple[Notice, ...]:
        answer = await self._get("/latest/meta-data/spot/instance-action")
        return () if answer.status == 404 else (interruption(answer.expect_ok()),)

    async def _get(self, path: str) -> Answer:
        answer = await self._ask(path)
        if answer.status == 401:
            # Tokens of before a restart of the service, or of a machine that an image was made of, count no more.
            self._renew_at = 0.0
            answer = await self._ask(path)
        return answer

    async def _ask(self, path: str) -> Answer:
        if time.monotonic() >= self._renew_at:
            wanted = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}
            self._token = (await ask(f"{self._url}/latest/api/token", wanted, method="PUT")).expect_ok().text
            self._renew_at = time.monotonic() + TOKEN_S / 2
        return await ask(f"{self._url}{path}", {"X-aws-ec2-metadata-token": self._token})


def interruption(answer: Answer) -> Notice:
    """Raises MetadataError where EC2's answer is not as it is documented."""
    try:
        item = InstanceAction.model_validate_json(answer.text)
    except ValidationError as error:
        raise MetadataError(f"{answer.url} answers with no instance action: {error.errors()[0]['msg']}") from error
    # Hibernating begins at once, and has no two minutes.
    longest_s = 0.0 if item.action == "hibernate" else NOTICE_S
    ends_at = own_time(item.time.timestamp(), answer.theirs, answer.at, longest_s)
    return Notice(ends_at, f"EC2 will {item.action} this spot instance")
