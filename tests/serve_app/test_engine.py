"""A placement as vLLM and `ray.serve.llm` are told of it."""

import logging
import time
from typing import Any

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs

from clusters.spec import FleetSpec, Task
from clusters.storage import StoreSpec, WeightsSpec
from serve_app.engine import llm_config
from serve_app.site_args import ModelAppArgs
from serve_app.start_up import Journal, StartUp, from_log
from tests.serve_app.routing.fleets import fleet, placement, site

pytestmark = pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")


def arguments(tasks: tuple[Task, ...] = (Task.CHAT,), device: str = "gpu", **fields: Any) -> dict[str, Any]:
    """What vLLM is given for a placement on L4."""
    declared: FleetSpec = fleet(site("a"), placements=(placement("a", gpus=0.5, **fields),))
    args = {
        "model": declared.models[0].model_copy(update={"tasks": tasks}),
        "placement": declared.placements[0],
        "pool": declared.sites[0].pools[0].model_copy(update={"accelerator": "L4", "gpus": 1}),
        "device": device,
        "store": StoreSpec(url="file:///store"),
        "token_variable": "TOKEN",
        "weights": WeightsSpec(home="a"),
        "keep": (),
    }
    given: dict[str, Any] = llm_config(ModelAppArgs.model_validate(args)).engine_kwargs
    AsyncEngineArgs(model="m", **given)
    return given


def test_batching_and_the_share_of_memory_are_vllms_own_arguments() -> None:
    given = arguments(batching={"max_num_seqs": 8, "max_num_batched_tokens": 512, "chunked_prefill": False})
    assert (given["max_num_seqs"], given["max_num_batched_tokens"]) == (8, 512)
    assert given["enable_chunked_prefill"] is False
    assert given["gpu_memory_utilization"] == 0.45


def test_prefix_caching_is_on_for_models_that_write_and_vllms_choice_for_others() -> None:
    assert arguments()["enable_prefix_caching"] is True
    assert "enable_prefix_caching" not in arguments((Task.EMBEDDINGS,))
    assert arguments((Task.EMBEDDINGS,), prefix_caching=False)["enable_prefix_caching"] is False


def test_speculation_is_off_unless_asked_for() -> None:
    assert "speculative_config" not in arguments()
    assert arguments(speculation={"tokens": 3, "max_ngram": 5})["speculative_config"] == {
        "method": "ngram",
        "num_speculative_tokens": 3,
        "prompt_lookup_min": 1,
        "prompt_lookup_max": 5,
    }


def test_what_the_placement_says_of_the_engine_itself_wins() -> None:
    own = {"max_num_seqs": 2, "enable_prefix_caching": False, "gpu_memory_utilization": 0.3}
    assert arguments(engine=own).items() >= own.items()


def test_engines_on_cpus_stay_eager() -> None:
    given = arguments(device="cpu")
    assert given["enforce_eager"] is True
    assert "gpu_memory_utilization" not in given


def test_a_replica_says_how_it_started(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal()
    journal.ended("imports")
    journal.ended("weights")
    with caplog.at_level(logging.INFO, "ray.serve"):
        logging.getLogger("ray.serve").addHandler(caplog.handler)
        journal.publish("m")
    (told,) = [start_up for line in caplog.messages if (start_up := from_log(line))]
    assert isinstance(told, StartUp)
    assert list(told.phases) == ["imports", "weights"]
    assert told.ended_at == pytest.approx(time.time(), abs=30)
