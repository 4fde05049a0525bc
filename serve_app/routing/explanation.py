"""A choice's reasons, for people and JSON."""

from pydantic import BaseModel, ConfigDict

from clusters.spec import Market, Task


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Considered(_Frozen):
    """One place that could have served the request. A lower rank goes first, then a lower score."""

    name: str
    hosted: bool
    market: Market | None
    chosen: bool
    rank: int
    score: float
    usd_tokens: float
    """Of the whole prompt and the expected answer."""
    usd_saved: float
    """Of these, what the cached prefix saves."""
    usd_egress: float
    usd_late: float
    usd_total: float
    predicted_ttft_s: float
    round_trip_s: float
    queue_s: float
    prefill_s: float
    cached_tokens: int
    load: float
    """Requests per slot, without this one."""
    slots: float


class Asked(_Frozen):
    """The request, without its text."""

    model: str
    task: Task | None
    stream: bool
    prompt_tokens: int
    expected_output_tokens: float
    tenant: str
    jurisdictions: tuple[str, ...] | None
    hosted: str
    only_site: str | None
    min_context: int


class Explanation(_Frozen):
    """Every place is in `considered` or in `rejections`."""

    policy: str
    target: str | None
    full: bool
    forbidden: bool
    request: Asked
    considered: tuple[Considered, ...]
    rejections: dict[str, str]
