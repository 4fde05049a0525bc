"""The latest choices, by request."""

from collections import deque

from serve_app.routing.choice import Choice


class Recent:
    """At most `most` of them; the oldest go first. They are kept for every request and looked for rarely."""

    def __init__(self, most: int):
        self._choices: deque[tuple[str, Choice]] = deque(maxlen=most)

    def keep(self, request_id: str, choice: Choice) -> None:
        """A request's later choice hides its earlier one."""
        self._choices.append((request_id, choice))

    def get(self, request_id: str) -> Choice | None:
        return next((choice for each, choice in reversed(self._choices) if each == request_id), None)
