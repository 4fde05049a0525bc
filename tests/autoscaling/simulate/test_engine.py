"""The engine against closed forms, and against one that takes every step by itself."""

import math
import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.simulate.engine import Engine, Sequence
from autoscaling.simulate.engine_model import EngineModel
from clusters.batching import BatchingSpec

MODEL = EngineModel(
    source="made up", step_s=0.01, sequence_s=0.0005, kv_token_s=1e-6, prefill_token_s=1e-4, kv_tokens=100_000
)
ATTENTIVE = MODEL.model_copy(update={"admission_s": 2e-3, "attention_s": 3e-7})
BATCHING = BatchingSpec(max_num_seqs=8, max_num_batched_tokens=512)


@dataclass(frozen=True)
class Asked:
    at: float
    prompt: int
    output: int
    blocks: tuple[int, ...] = ()


@dataclass
class Told:
    first: float = math.nan
    finished: float = math.nan
    cached: int = 0


def run(asked: list[Asked], model: EngineModel = MODEL, batching: BatchingSpec = BATCHING) -> tuple[list[Told], Engine]:
    engine = Engine(model, batching)
    told = [Told() for _ in asked]
    numbers: dict[Sequence, int] = {}
    waiting = sorted(range(len(asked)), key=lambda n: asked[n].at)
    while waiting or engine.next_at < math.inf:
        if waiting and asked[waiting[0]].at <= engine.next_at:
            n = waiting.pop(0)
            sequence = Sequence(asked[n].prompt, asked[n].output, asked[n].blocks)
            numbers[sequence] = n
            engine.add(sequence, asked[n].at)
            continue
        now = engine.next_at
        first_tokens, finished = engine.advance()
        for sequence in first_tokens:
            told[numbers[sequence]].first = now
            told[numbers[sequence]].cached = sequence.cached
        for sequence in finished:
            told[numbers[sequence]].finished = now
    return told, engine


def test_a_request_alone_takes_its_prefill_and_then_a_step_per_token() -> None:
    (told,), _ = run([Asked(5.0, 300, 50)])
    assert told.first == pytest.approx(5.0 + 0.01 + 300 * 1e-4)
    decoding = sum(MODEL.decode_s(1, 300 + n) for n in range(49))
    assert told.finished == pytest.approx(told.first + decoding)


def test_a_prompt_longer_than_a_step_is_read_in_chunks() -> None:
    (told,), _ = run([Asked(0.0, 1200, 1)])
    assert told.first == pytest.approx(3 * 0.01 + 1200 * 1e-4)
    assert told.finished == told.first


def test_attention_costs_a_chunked_prompt_as_much_as_a_whole_one() -> None:
    (chunked,), _ = run([Asked(0.0, 1200, 1)], ATTENTIVE)
    (whole,), _ = run([Asked(0.0, 1200, 1)], ATTENTIVE, BatchingSpec(max_num_seqs=8, max_num_batched_tokens=2048))
    assert whole.first == pytest.approx(ATTENTIVE.alone_s(1200))
    assert chunked.first == pytest.approx(whole.first + 2 * 0.01)


def test_what_is_cached_is_still_attended_to() -> None:
    blocks = tuple(range(20))
    told, _ = run([Asked(0.0, 330, 1, blocks), Asked(1.0, 340, 1, blocks)], ATTENTIVE)
    assert told[1].first - 1.0 == pytest.approx(0.01 + 2e-3 + 20 * 1e-4 + (20 * 320 + 200) * 3e-7)


def test_every_request_costs_its_admission_once() -> None:
    asked = [Asked(0.0, 400, 1), Asked(0.001, 10, 1), Asked(0.002, 10, 1)]
    told, _ = run(asked, ATTENTIVE)
    free = ATTENTIVE.model_copy(update={"admission_s": 0.0})
    without, _ = run(asked, free)
    later = [each.first - other.first for each, other in zip(told, without, strict=True)]
    assert later == pytest.approx([0.002, 0.006, 0.006])


def test_prefill_slows_those_that_decode() -> None:
    alone, _ = run([Asked(0.0, 100, 100)])
    beside, _ = run([Asked(0.0, 100, 100), Asked(0.3, 512, 1)])
    slower = beside[0].finished - alone[0].finished
    assert slower == pytest.approx(512 * 1e-4)


def test_one_at_a_time_waits_as_a_queue_of_fixed_service_does() -> None:
    """M/D/1: the mean wait is rho * s / (2 * (1 - rho))."""
    rng = random.Random(1)
    service_s, rho = 0.01 + 200 * 1e-4, 0.8
    at = 0.0
    asked = []
    for _ in range(40_000):
        at += rng.expovariate(rho / service_s)
        asked.append(Asked(at, 200, 1))
    told, _ = run(asked, batching=BatchingSpec(max_num_seqs=1, max_num_batched_tokens=512))
    waits = [one.first - each.at - service_s for one, each in zip(told, asked, strict=True)]
    assert sum(waits) / len(waits) == pytest.approx(rho * service_s / (2 * (1 - rho)), rel=0.08)


def test_a_saturated_engine_gives_what_full_batches_give() -> None:
    told, _ = run([Asked(0.0, 1, 201) for _ in range(80)])
    ends = max(one.finished for one in told)
    full_s = sum(MODEL.decode_s(8, 8 * (1 + n)) for n in range(200))
    assert ends == pytest.approx(10 * full_s, rel=0.02)


def test_no_more_than_max_num_seqs_run() -> None:
    told, _ = run([Asked(0.0, 10, 100) for _ in range(9)])
    assert sorted(one.first for one in told)[8] > min(one.finished for one in told) - 1e-9


def test_a_full_cache_makes_the_next_one_wait() -> None:
    model = MODEL.model_copy(update={"kv_tokens": 1000})
    told, engine = run([Asked(0.0, 600, 10), Asked(0.0, 600, 10)], model)
    assert told[1].first > told[0].finished
    assert engine.preempted == 0
    assert engine.cache.used == 0


def test_a_cache_that_fills_while_decoding_throws_the_latest_out_and_both_finish() -> None:
    model = MODEL.model_copy(update={"kv_tokens": 1000})
    told, engine = run([Asked(0.0, 400, 200), Asked(0.0, 400, 200)], model)
    assert engine.preempted == 1
    assert told[0].finished < told[1].finished < math.inf
    assert engine.cache.used == 0


def test_a_known_prefix_is_not_read_again() -> None:
    blocks = tuple(range(20))
    told, _ = run([Asked(0.0, 330, 1, blocks), Asked(1.0, 340, 1, blocks), Asked(2.0, 340, 1, (*blocks[:5], 99))])
    assert [one.cached for one in told] == [0, 320, 80]
    assert told[1].first - 1.0 == pytest.approx(0.01 + 20 * 1e-4)


def test_the_least_recent_prefix_goes_first() -> None:
    model = MODEL.model_copy(update={"kv_tokens": 512})
    first, second, third = (tuple(range(n, n + 10)) for n in (0, 100, 200))
    asked = [Asked(float(n), 161, 1, blocks) for n, blocks in enumerate((first, second, third, first, third))]
    told, _ = run(asked, model)
    assert [one.cached for one in told] == [0, 0, 0, 160, 160]
    told, _ = run([*asked[:3], Asked(3.0, 161, 1, tuple(range(300, 310))), Asked(4.0, 161, 1, first)], model)
    assert told[-1].cached == 0


def test_an_engine_that_dropped_everything_is_as_a_new_one() -> None:
    engine, later = Engine(MODEL, BATCHING), 100.0
    for number in range(20):
        engine.add(Sequence(900, 400, tuple(range(10 * number, 10 * number + 10))), 0.0)
    for _ in range(30):
        engine.advance()
    lost = engine.drop(engine.next_at - 0.001)
    assert lost
    assert (engine.running, engine.waiting, engine.cache.used, engine.next_at) == (0, 0, 0, math.inf)
    new = Engine(MODEL, BATCHING)
    for each in (engine, new):
        each.add(Sequence(900, 400, tuple(range(10))), later)
    while new.next_at < math.inf:
        assert engine.next_at == new.next_at
        assert [len(told) for told in engine.advance()] == [len(told) for told in new.advance()]
    assert engine.next_at == math.inf


def test_what_is_dropped_tells_how_much_is_left() -> None:
    engine = Engine(MODEL, BATCHING)
    engine.add(Sequence(100, 50), 0.0)
    engine.advance()
    began = engine.next_at
    engine.add(Sequence(100, 50), 0.02)
    assert engine.next_at < began
    three_steps = 0.02 + sum(MODEL.decode_s(1, 100 + n) for n in range(3))
    engine = Engine(MODEL, BATCHING)
    engine.add(Sequence(100, 50), 0.0)
    engine.advance()
    ((_, left),) = engine.drop(three_steps + 0.001)
    assert left == 50 - 1 - 3
    assert engine.next_at == math.inf


asks = st.lists(
    st.builds(
        Asked,
        # Never two at once, nor at the end of a step: there, one step more or less is as good.
        at=st.integers(0, 3_000).map(lambda n: n * 0.00100037 + 0.0000137),
        prompt=st.integers(1, 700),
        output=st.integers(1, 60),
    ),
    min_size=1,
    max_size=30,
    unique_by=lambda one: one.at,
)


@given(asks)
@settings(max_examples=150, deadline=None)
def test_leaps_end_where_single_steps_would(asked: list[Asked]) -> None:
    told, engine = run(asked, ATTENTIVE)
    expected = step_by_step(asked, ATTENTIVE)
    for one, (first, finished) in zip(told, expected, strict=True):
        assert one.first == pytest.approx(first, abs=1e-6)
        assert one.finished == pytest.approx(finished, abs=1e-6)
    assert engine.cache.used == 0


def step_by_step(asked: list[Asked], model: EngineModel) -> list[tuple[float, float]]:
    """Plain, and without a limit of the cache."""
    coming = sorted(range(len(asked)), key=lambda n: asked[n].at)
    waiting: list[int] = []
    unread: dict[int, int] = {}
    left: dict[int, int] = {}
    had = dict.fromkeys(coming, 0)
    first: dict[int, float] = {}
    finished: dict[int, float] = {}
    now = 0.0
    while len(finished) < len(asked):
        while coming and asked[coming[0]].at <= now:
            waiting.append(coming.pop(0))
        if not (waiting or unread or left):
            now = asked[coming[0]].at
            continue
        budget = BATCHING.max_num_batched_tokens - len(left) - sum(unread.values())
        admitted = 0
        while waiting and budget > 0 and len(unread) + len(left) < BATCHING.max_num_seqs:
            n = waiting.pop(0)
            unread[n] = asked[n].prompt
            budget -= asked[n].prompt
            admitted += 1
        tokens = min(BATCHING.max_num_batched_tokens - len(left), sum(unread.values()))
        context = sum(asked[n].prompt + had[n] - 1 for n in left)
        spare, attended = tokens, 0
        for n in unread:
            read = min(spare, unread[n])
            spare -= read
            begun = asked[n].prompt - unread[n]
            attended += sum(begun + position for position in range(read))
        # As `pairs` counts them: each token has half of itself before it.
        now += model.decode_s(len(left), context) + model.prefill_s(admitted, tokens, attended + tokens / 2)
        for n in list(left):
            left[n] -= 1
            had[n] += 1
            if not left[n]:
                del left[n]
                finished[n] = now
        for n in list(unread):
            read = min(tokens, unread[n])
            unread[n] -= read
            tokens -= read
            if unread[n]:
                break
            del unread[n]
            first[n] = now
            had[n] = 1
            if asked[n].output == 1:
                finished[n] = now
            else:
                left[n] = asked[n].output - 1
    return [(first[n], finished[n]) for n in range(len(asked))]
