"""What `rayfleet check` says of `engine:`: nothing there may undo what was checked and derived."""

import pytest

from tests.clusters.mistakes import assert_mistake

WHOLE, POOLING = "a100, gpus: 2", "l40s, gpus: 0.25"
ENGINES = {
    WHOLE: "placements[1] (chat @ west).engine",
    POOLING: "placements[2] (embed @ home).engine",
}


@pytest.mark.parametrize(
    ("old", "engine", "field", "message", "fix"),
    [
        (WHOLE, "max_num_seqs: 9", "max_num_seqs", "placement's batching.max_num_seqs", "set batching.max_num_seqs"),
        (WHOLE, "tensor_parallel_size: 4", "tensor_parallel_size", "the placement's gpus", "set gpus"),
        (POOLING, "gpu_memory_utilization: 0.9", "gpu_memory_utilization", "the placement's gpus", "set gpus"),
        (WHOLE, "data_parallel_size: 2", "data_parallel_size", "autoscaling.min_replicas", "set autoscaling.min"),
        (WHOLE, "load_format: dummy}, loading: streamed, speculation: {", "load_format", "loading", "remove it"),
        (WHOLE, "spec_tokens: 4}, speculation: {", "spec_tokens", "the placement's speculation", "remove it"),
        (WHOLE, "pipeline_parallel_size: 3", "pipeline_parallel_size", "2 GPUs are not 3 stages", "a divisor"),
        (POOLING, "pipeline_parallel_size: 2", "pipeline_parallel_size", "0.25 GPUs are not 2 stages", "a divisor"),
        (WHOLE, "pipeline_parallel_size: 0", "pipeline_parallel_size", "0 is out of range", "from 1"),
        (WHOLE, "max_model_len: 2048", "max_model_len", "2048 is out of range", "use 16 to 1024"),
        (WHOLE, "max_model_len: 1k", "max_model_len", '"1k" is out of range', "use 16 to 1024"),
        (WHOLE, "kv_cach_dtype: fp8", "kv_cach_dtype", "vLLM has no such argument", "did you mean `kv_cache_dtype`?"),
        (WHOLE, "zzz: 1", "zzz", "vLLM has no such argument", "remove it"),
    ],
)
def test_an_engine_is_told_nothing_that_the_placement_says_otherwise(
    old: str, engine: str, field: str, message: str, fix: str
) -> None:
    assert_mistake(old, f"{old}, engine: {{{engine}}}", f"{ENGINES[old]}.{field}", message, fix)


@pytest.mark.parametrize(
    ("old", "engine"),
    [
        (WHOLE, "pipeline_parallel_size: 2, max_model_len: 512, kv_cache_dtype: fp8"),
        (WHOLE, "load_format: dummy, speculative_config: {method: eagle}"),
        (POOLING, "pipeline_parallel_size: 1, enforce_eager: true"),
    ],
)
def test_what_the_placement_says_nothing_of_is_vllms_own(old: str, engine: str) -> None:
    assert_mistake(old, f"{old}, engine: {{{engine}}}", None, "", "")
