"""What `rayfleet check` says of models of tensors."""

import pytest

from clusters.check import problems
from clusters.spec import Task
from tests.clusters.mistakes import FLEET

MODEL = "models[1] (embed)"
PLACEMENT = "placements[2] (embed @ home)"
TENSORS = FLEET.replace("tasks: [embeddings], max_model_len: 512", "tasks: [infer]").replace(
    "{model: embed, site: home, pool: l40s, gpus: 0.25}",
    "{model: embed, site: home, pool: l40s, gpus: 0.25, batching: {max_num_seqs: 4096, max_wait_ms: 5}}",
)


def test_a_fleet_with_a_model_of_tensors_is_right() -> None:
    assert problems(TENSORS) == []
    assert Task.INFER.value in TENSORS


def test_a_program_may_be_smaller_than_an_engine() -> None:
    """0.05 of an L40S is too little for vLLM."""
    assert problems(TENSORS.replace("gpus: 0.25,", "gpus: 0.05,", 1)) == []


@pytest.mark.parametrize(
    ("old", "new", "field", "message", "fix"),
    [
        ("tasks: [infer]", "tasks: [infer, embeddings]", f"{MODEL}.tasks", "does nothing else", "of infer alone"),
        ("tasks: [infer]", "tasks: [infer], max_model_len: 9", f"{MODEL}.max_model_len", "not counted", "remove it"),
        (", max_model_len: 1024", "", "models[0] (chat).max_model_len", "missing", "add `max_model_len"),
        ("max_model_len: 1024", "max_model_len: 15", "models[0] (chat).max_model_len", "out of range", "at least 16"),
        ("gpus: 0.25,", "gpus: 2,", f"{PLACEMENT}.gpus", "runs on one card", "at most 1"),
        ("gpus: 0.25,", "gpus: 0.25, loading: streamed,", f"{PLACEMENT}.loading", "node's disk", "leave it out"),
        ("gpus: 0.25,", "gpus: 0.25, engine: {a: 1},", f"{PLACEMENT}.engine", "this is for vLLM", "remove it"),
        ("gpus: 0.25,", "gpus: 0.25, warm_up_s: 9,", f"{PLACEMENT}.warm_up_s", "this is for vLLM", "remove it"),
        (
            "max_wait_ms: 5",
            "max_num_batched_tokens: 8192",
            f"{PLACEMENT}.batching.max_num_batched_tokens",
            "this is for vLLM",
            "remove it",
        ),
        ("max_wait_ms: 5", "max_wait_ms: -1", f"{PLACEMENT}.batching.max_wait_ms", "out of range", "at least 0"),
        (
            "max_num_seqs: 16, ",
            "max_num_seqs: 16, max_wait_ms: 5, ",
            "placements[0] (chat @ east).batching.max_wait_ms",
            "vLLM's batches don't wait",
            "remove it",
        ),
    ],
)
def test_one_mistake(old: str, new: str, field: str, message: str, fix: str) -> None:
    assert old in TENSORS
    found = {problem.field: problem for problem in problems(TENSORS.replace(old, new, 1))}
    assert field in found, found
    assert message in found[field].message
    assert fix in found[field].fix
