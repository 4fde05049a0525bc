"""What one client may ask of a port before it is told to stop."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, seconds and counts. Times are kept to within half a second."""

    max_connections: int = 10_000
    max_head_bytes: int = 2**16
    """Of names and values; trailers count, too."""
    max_headers: int = 128
    max_target_bytes: int = 2**13
    max_body_bytes: int = 2**26
    max_pipelined: int = 32
    """Whole requests that wait for the answers before theirs."""
    header_timeout_s: float = 15.0
    body_timeout_s: float = 60.0
    """For the whole body."""
    keep_alive_s: float = 75.0
    write_timeout_s: float = 60.0
    """For a client that takes nothing of what waits for it."""
