"""The latest choices, by request."""

from serve_app.routing.choice import Choice


class Recent:
    """At most `most` of them; the oldest go first."""

    def __init__(self, most: int):
        self._most = most
        self._choices: dict[str, Choice] = {}

    def keep(self, request_id: str, choice: Choice) -> None:
        """A request's later choice takes the place of its earlier one."""
        self._choices.pop(request_id, None)
        self._choices[request_id] = choice
        while len(self._choices) > self._most:
            del self._choices[next(iter(self._choices))]

    def get(self, request_id: str) -> Choice | None:
        return self._choices.get(request_id)
