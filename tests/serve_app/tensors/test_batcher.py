"""Rows of many requests run together, and each request gets its own back."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
import torch
from ray import serve

from serve_app.engine_report import EngineStats
from serve_app.tensors.errors import Broken, Unable
from serve_app.tensors.program import Program, Tensors
from tests.serve_app.tensors.batchers import kept
from tests.serve_app.tensors.programs import FEATURES, VOCABULARY, classifier, reranker

LONG_WAIT_S = 0.2
PATIENCE_S = 60.0


class Watched(Program):
    """Notes how many rows each run had."""

    runs: list[int]

    def run(self, inputs: Sequence[torch.Tensor]) -> Tensors:
        self.runs.append(len(inputs[0]))
        return super().run(inputs)


def watched(program: Program) -> Watched:
    program.__class__ = Watched
    assert isinstance(program, Watched)
    program.runs = []
    return program


def features(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, FEATURES, generator=torch.Generator().manual_seed(seed))


async def test_requests_that_come_together_are_one_run(classifier_program: Program) -> None:
    program = watched(classifier_program)
    batcher = kept(program, max_rows=16, wait_s=LONG_WAIT_S)
    asked = [features(rows, seed) for seed, rows in enumerate([1, 3, 2, 5, 1])]
    answers = await asyncio.gather(*(batcher.infer((each,)) for each in asked))
    assert program.runs == [12]
    with torch.inference_mode():
        for given, (answer,) in zip(asked, answers, strict=True):
            torch.testing.assert_close(answer, classifier()(given))


async def test_a_batch_never_has_more_rows_than_it_may(classifier_program: Program) -> None:
    program = watched(classifier_program)
    batcher = kept(program, max_rows=4, wait_s=LONG_WAIT_S)
    asked = [features(rows, seed) for seed, rows in enumerate([3, 2, 11, 4, 1])]
    answers = await asyncio.gather(*(batcher.infer((each,)) for each in asked))
    assert max(program.runs) <= 4
    assert sum(program.runs) == 21
    with torch.inference_mode():
        for given, (answer,) in zip(asked, answers, strict=True):
            torch.testing.assert_close(answer, classifier()(given))


async def test_rows_of_other_shapes_run_apart(reranker_program: Program) -> None:
    program = watched(reranker_program)
    batcher = kept(program, max_rows=16, wait_s=LONG_WAIT_S)
    asked = [(torch.randint(VOCABULARY, (2, words)), torch.randint(VOCABULARY, (2, 5))) for words in (3, 4, 3)]
    answers = await asyncio.gather(*(batcher.infer(each) for each in asked))
    assert sorted(program.runs) == [2, 4]
    with torch.inference_mode():
        for given, (score, _) in zip(asked, answers, strict=True):
            torch.testing.assert_close(score, reranker()(*given)[0])


async def test_a_request_that_fails_does_not_spoil_its_neighbours(reranker_program: Program) -> None:
    batcher = kept(watched(reranker_program), max_rows=16, wait_s=LONG_WAIT_S)
    right = torch.ones(1, 4, dtype=torch.int64)
    first, wrong, last = await asyncio.gather(
        batcher.infer((right, right)),
        batcher.infer((right * VOCABULARY, right)),
        batcher.infer((right, right)),
        return_exceptions=True,
    )
    assert isinstance(wrong, Unable)
    assert isinstance(first, tuple)
    assert isinstance(last, tuple)
    assert torch.equal(first[0], last[0])
    batcher.check()


async def test_a_program_that_fails_at_everything_is_ill(
    reranker_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = kept(reranker_program, max_rows=4, wait_s=0)
    right = torch.ones(1, 4, dtype=torch.int64)
    await batcher.infer((right, right))
    with monkeypatch.context() as patch:
        patch.setattr(reranker_program, "_module", lost)
        with pytest.raises(Broken, match="device lost"):
            await batcher.infer((right, right))
        with pytest.raises(Broken):
            batcher.check()
    await batcher.infer((right, right))
    batcher.check()


def lost(*_: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("device lost")


async def test_rows_that_wait_and_run_are_counted(classifier_program: Program) -> None:
    batcher = kept(classifier_program, max_rows=8, wait_s=LONG_WAIT_S)
    asking = asyncio.create_task(batcher.infer((features(5),)))
    await asyncio.sleep(0)
    assert (batcher.stats.running, batcher.stats.waiting) == (0, 5)
    await asking
    assert (batcher.stats.running, batcher.stats.waiting) == (0, 0)


class Gated(Program):
    """Stays in each run until it is let go, and notes how many are in it at once."""

    begun: threading.Semaphore
    go: threading.Event
    inside: int
    most: int

    def run(self, inputs: Sequence[torch.Tensor]) -> Tensors:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.begun.release()
        assert self.go.wait(PATIENCE_S)
        self.inside -= 1
        return super().run(inputs)


def gated(program: Program) -> Gated:
    program.__class__ = Gated
    assert isinstance(program, Gated)
    program.begun, program.go = threading.Semaphore(0), threading.Event()
    program.inside = program.most = 0
    return program


async def test_rows_of_a_client_that_left_are_counted_as_long_as_they_run(classifier_program: Program) -> None:
    program = gated(classifier_program)
    batcher = kept(program, max_rows=4, wait_s=0)
    leaving = asyncio.create_task(batcher.infer((features(4),)))
    assert await asyncio.to_thread(program.begun.acquire, timeout=PATIENCE_S)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert batcher.stats == EngineStats(running=4, waiting=0)
    gone, staying = (asyncio.create_task(batcher.infer((features(rows),))) for rows in (2, 3))
    await asyncio.sleep(0)
    assert batcher.stats == EngineStats(running=4, waiting=5)
    gone.cancel()
    await asyncio.wait([gone])
    assert batcher.stats == EngineStats(running=4, waiting=3)
    program.go.set()
    await staying
    assert batcher.stats == EngineStats()


async def test_one_batch_runs_at_a_time_even_where_requests_name_other_models_to_serve(
    classifier_program: Program,
) -> None:
    """Serve splits a batch by the header `serve_multiplexed_model_id`, and runs its parts at once."""
    program = gated(classifier_program)
    batcher = kept(program, max_rows=4, wait_s=LONG_WAIT_S)

    async def naming(model: str) -> Tensors:
        serve.context._set_request_context(multiplexed_model_id=model)
        return await batcher.infer((features(2),))

    asking = [asyncio.create_task(naming(model)) for model in ("a", "b")]
    assert await asyncio.to_thread(program.begun.acquire, timeout=PATIENCE_S)
    assert batcher.stats == EngineStats(running=4, waiting=0)
    program.go.set()
    await asyncio.gather(*asking)
    assert (program.most, batcher.stats) == (1, EngineStats())
