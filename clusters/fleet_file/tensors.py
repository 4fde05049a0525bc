"""What goes with models of tensors alone, and what with all others."""

from collections.abc import Iterator

from clusters.fleet_file.document import Mistake
from clusters.fleet_file.draft import Part
from clusters.spec import Loading, Task

LEAST_MODEL_LEN = 16
ENGINE_SETTINGS = ("engine", "prefix_caching", "warm_up_s")
ENGINE_BATCHING = ("max_num_batched_tokens", "chunked_prefill")
"""Of vLLM, and without a meaning for a program."""


def mistaken(model: Part) -> Iterator[Mistake]:
    """Of a model by itself."""
    tasks, longest = model["tasks"], model["max_model_len"]
    if tasks is None:
        return
    if Task.INFER in tasks:
        if len(set(tasks)) > 1:
            yield model.mistake("tasks", "a program of tensors does nothing else", "make a model of infer alone")
        if model.gives("max_model_len"):
            yield model.mistake("max_model_len", "tensors are not counted in tokens", "remove it")
    elif not model.gives("max_model_len"):
        yield model.mistake("max_model_len", "missing", "add `max_model_len: …` (tokens of prompt and answer together)")
    elif longest is not None and longest < LEAST_MODEL_LEN:
        yield model.mistake("max_model_len", f"{longest} is out of range", f"use at least {LEAST_MODEL_LEN}")


def unsuited(placement: Part, model: Part | None) -> Iterator[Mistake]:
    """Of a placement of that model."""
    if model is None or model["tasks"] is None:
        return
    batching = placement["batching"]
    if Task.INFER not in model["tasks"]:
        if batching.gives("max_wait_ms"):
            message = f"{model['name']} is no model of tensors: vLLM's batches don't wait"
            yield batching.mistake("max_wait_ms", message, "remove it")
        return
    message = f"{model['name']} is a model of tensors, and this is for vLLM"
    for part, fields in ((placement, ENGINE_SETTINGS), (batching, ENGINE_BATCHING)):
        for field in fields:
            if part.gives(field):
                yield part.mistake(field, message, "remove it")
    if placement["loading"] is not None and placement["loading"] != Loading.CACHED:
        yield placement.mistake("loading", "programs are loaded from the node's disk", "leave it out: cached")
    if placement["gpus"] is not None and placement["gpus"] > 1:
        yield placement.mistake("gpus", "a program runs on one card", "use at most 1, and more replicas")
