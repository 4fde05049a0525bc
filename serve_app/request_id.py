"""A request's name in logs and at the sites."""

import re
import uuid
from collections.abc import Mapping

SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id(headers: Mapping[str, str]) -> str:
    """The one that came with the request, or a new one when there is none that may stand in a log line.

    Ray Serve names every request before we see it, and puts the name on the response: we must not do it again.
    """
    given = headers.get("x-request-id", "")
    return given if SANE.fullmatch(given) else str(uuid.uuid4())
