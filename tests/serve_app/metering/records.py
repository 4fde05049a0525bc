"""Records to count and to log."""

from typing import Any

from serve_app.metering.record import Outcome, Record


def record(**fields: Any) -> Record:
    """A whole stream of `chat` from `east`, but for `fields`."""
    whole: dict[str, Any] = {
        "request_id": "req-1",
        "started": 1_790_000_000.0,
        "key": "laptop",
        "tenant": "acme",
        "model": "chat",
        "release": "0" * 12,
        "site": "east",
        "pool": "l4",
        "market": "spot",
        "stream": True,
        "attempts": 1,
        "outcome": Outcome.OK,
        "status": 200,
        "tokens_in": 100,
        "tokens_out": 20,
        "tokens_cached": 64,
        "usd": 0.25,
        "ttft_s": 0.07,
        "tpot_s": 0.004,
        "duration_s": 0.4,
    }
    return Record(**(whole | fields))
