"""What the router knows of a request."""

from dataclasses import dataclass

from clusters.spec import Task


@dataclass(frozen=True, slots=True)
class Facts:
    """Read from the request once. Nothing downstream looks into the body again."""

    model: str
    task: Task
    stream: bool
    body_bytes: int
    only_site: str | None = None
    """The one site that the client allows, for demonstrations and tests."""
