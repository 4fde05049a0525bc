"""Rows of many requests run together, and each request gets its own back."""

import asyncio
from collections.abc import Sequence

import pytest
import torch

from serve_app.tensors.errors import Broken, Unable
from serve_app.tensors.program import Program, Tensors
from tests.serve_app.tensors.batchers import kept
from tests.serve_app.tensors.programs import FEATURES, VOCABULARY, classifier, reranker

LONG_WAIT_S = 0.2


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
