"""An engine model fitted to what a real placement did: the coefficients of its steps, by least squares."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from autoscaling.simulate.engine_model import EngineModel, pairs
from autoscaling.simulate.errors import CannotFit
from autoscaling.simulate.least_squares import least_squares

LEAST_STEPS = 4
"""In which all of a batch decode: fewer tell a step's time badly."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer, by the clock of who asked."""

    sent: float
    times: tuple[float, ...]
    """When each event with tokens came; at least one."""
    prompt_tokens: int
    output_tokens: int

    @property
    def first(self) -> float:
        return self.times[0]

    @property
    def last(self) -> float:
        return self.times[-1]

    def tokens_until(self, time: float) -> float:
        """Generated until then: one with the first event, and as many with each later one."""
        events = sum(each <= time for each in self.times)
        return 1 + (events - 1) * (self.output_tokens - 1) / max(1, len(self.times) - 1)


Batch = Sequence[Answer]
"""Of requests that were sent at once to an idle engine, whose prompts it had not seen and which all run together."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was measured beside what the model says of the same."""

    what: str
    requests: int
    prompt_tokens: int
    measured_s: float
    modelled_s: float

    @property
    def error(self) -> float:
        """As a share of what was measured."""
        return self.modelled_s / self.measured_s - 1


@dataclass(frozen=True, slots=True)
class Fit:
    model: EngineModel
    checks: tuple[Check, ...]
    """One for each size of batch and length of prompt, of first tokens and of steps."""

    def error(self, what: str) -> float:
        """Mean distance of the model from what was measured."""
        return mean(abs(check.error) for check in self.checks if check.what == what)


FIRST_TOKEN, STEP = "last first token", "step"


@dataclass(frozen=True, slots=True)
class _Row:
    """What was measured of one batch, and how often each cost is in it."""

    requests: int
    prompt_tokens: int
    seconds: float
    steps: float
    sequences: float
    """Summed over the steps, and so are the tokens of their contexts."""
    context: float

    def decoding(self) -> tuple[float, float, float]:
        return (self.steps, self.sequences, self.context)

    def reading(self) -> tuple[float, float, float, float]:
        """In the order of request_s, admission_s, prefill_token_s, attention_s."""
        tokens = self.requests * self.prompt_tokens
        return (1.0, self.requests, tokens, self.requests * pairs(0, self.prompt_tokens))


def together(batch: Batch) -> bool:
    """Whether there was a time at which all of it ran: else some waited for others to end, and it tells nothing."""
    return max(each.first for each in batch) < min(each.last for each in batch)


def fit(experiments: Iterable[Sequence[Batch]], kv_tokens: int, source: str) -> Fit:
    """Each experiment is one batch, repeated with other words; its median counts. Steps in which a whole batch decodes
    tell what decoding costs, and the time until each of a batch has begun what prompts and requests cost. Errors count
    by their share, so that slow batches do not drown fast ones. Raises CannotFit."""
    usable = [[batch for batch in repeated if together(batch)] for repeated in experiments]
    steps = _medians([[row for batch in repeated if (row := _steady(batch))] for repeated in usable])
    if len({row.requests for row in steps}) < 2:
        raise CannotFit(
            f"needs batches of two sizes or more that decode together for {LEAST_STEPS} steps or more: "
            "ask for more tokens, and for no more requests at once than the placement's max_num_seqs"
        )
    decode = least_squares([row.decoding() for row in steps], [row.seconds for row in steps])
    if decode[0] <= 0:
        raise CannotFit("steps of small batches took no time: does it stream, and does nobody else use the placement?")
    firsts = _medians([[_beginning(batch) for batch in repeated] for repeated in usable])
    beside = [row.seconds - _dot(decode, row.decoding()) for row in firsts]
    if len({row.prompt_tokens for row in firsts if row.requests == 1}) < 2:
        raise CannotFit("needs single requests with prompts of two lengths or more")
    if min(beside) <= 0:
        raise CannotFit("first tokens came sooner than a step takes: does nobody else use the placement?")
    request_s, admission_s, prefill_token_s, attention_s = least_squares([row.reading() for row in firsts], beside)
    model = EngineModel(
        source=source,
        step_s=decode[0],
        sequence_s=decode[1],
        kv_token_s=decode[2],
        admission_s=admission_s,
        prefill_token_s=prefill_token_s,
        attention_s=attention_s,
        request_s=request_s,
        kv_tokens=kv_tokens,
    )
    read = (request_s, admission_s, prefill_token_s, attention_s)
    checks = [_check(FIRST_TOKEN, row, _dot(decode, row.decoding()) + _dot(read, row.reading())) for row in firsts]
    checks += [_check(STEP, row, _dot(decode, row.decoding())) for row in steps]
    return Fit(model, tuple(checks))


def _steady(batch: Batch) -> _Row | None:
    """One step of those in which all decode; None where there are too few."""
    began, ended = max(each.first for each in batch), min(each.last for each in batch)
    before = [each.tokens_until(began) for each in batch]
    after = [each.tokens_until(ended) for each in batch]
    steps = (sum(after) - sum(before)) / len(batch)
    if steps < LEAST_STEPS:
        return None
    context = sum(_context(each, *had) for each, *had in zip(batch, before, after, strict=True))
    return _Row(len(batch), _prompt_tokens(batch), (ended - began) / steps, 1.0, len(batch), context)


def _beginning(batch: Batch) -> _Row:
    """From sending them until all have begun. The first to begin has had a token of every step since."""
    began = max(each.first for each in batch)
    had = [each.tokens_until(began) for each in batch]
    return _Row(
        len(batch),
        _prompt_tokens(batch),
        began - min(each.sent for each in batch),
        steps=max(had),
        sequences=sum(had) - len(batch),
        context=sum((last - 1) * _context(each, 1.0, last) for each, last in zip(batch, had, strict=True)),
    )


def _context(answer: Answer, before: float, after: float) -> float:
    """Mean tokens of its context in the steps between: a token's own step has not cached it yet."""
    return answer.prompt_tokens + (before + after - 3) / 2


def _prompt_tokens(batch: Batch) -> int:
    return round(mean(each.prompt_tokens for each in batch))


def _medians(experiments: Iterable[Sequence[_Row]]) -> list[_Row]:
    """Of each the one in the middle, by seconds."""
    ordered = [sorted(rows, key=lambda row: row.seconds) for rows in experiments if rows]
    return [rows[(len(rows) - 1) // 2] for rows in ordered]


def _check(what: str, row: _Row, modelled_s: float) -> Check:
    return Check(what, row.requests, row.prompt_tokens, row.seconds, modelled_s)


def _dot(coefficients: Sequence[float], amounts: Sequence[float]) -> float:
    return sum(each * amount for each, amount in zip(coefficients, amounts, strict=True))
