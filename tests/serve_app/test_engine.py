"""A placement as vLLM and `ray.serve.llm` are told of it."""

import asyncio
import logging
import os
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import ray
import vllm.envs
from ray.serve.config import BackpressureConfig
from ray.serve.llm import LLMConfig, build_llm_deployment
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.utils.import_utils import resolve_obj_by_qualname

from clusters.fleet_file.vllm_arguments import VLLM_ARGUMENTS
from clusters.render import Device, engine_deployment, site_config
from clusters.spec import FleetSpec, Loading, Task
from serve_app.engine import EngineServer, llm_config
from serve_app.engine_weights import WeightsCallback
from serve_app.gpu_usage import CardOfWorker
from serve_app.site_args import ModelAppArgs
from serve_app.start_up import Journal, StartUp, from_log
from serve_app.warm_up import WarmUp
from tests.serve_app.routing.fleets import fleet, placement, site
from tests.serve_app.test_engine_weights import weights_of


def config(tasks: tuple[Task, ...] = (Task.CHAT,), device: Device = "gpu", **fields: Any) -> LLMConfig:
    """Of a placement on L4."""
    declared: FleetSpec = fleet(site("a"), placements=(placement("a", **({"gpus": 0.5} | fields)),))
    models = tuple(model.model_copy(update={"tasks": tasks}) for model in declared.models)
    there = declared.model_copy(update={"models": models})
    *_, app = site_config(there, there.sites[0], "localhost", 8000, device)["applications"]
    return llm_config(ModelAppArgs.model_validate(app["args"]))


def arguments(tasks: tuple[Task, ...] = (Task.CHAT,), device: Device = "gpu", **fields: Any) -> dict[str, Any]:
    """What vLLM is given for it."""
    given: dict[str, Any] = config(tasks, device, **fields).engine_kwargs
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
    own = {"max_model_len": 512, "kv_cache_dtype": "fp8"}
    assert arguments(engine=own).items() >= own.items()


def test_a_fleet_file_may_name_every_argument_of_vllm_and_no_other() -> None:
    known = {field.name for kind in (AsyncEngineArgs, FrontendArgs) for field in fields(kind)}
    assert {name for name in known if not name.startswith("_")} == VLLM_ARGUMENTS


def test_a_warm_up_is_no_longer_than_what_the_placement_makes_of_its_model() -> None:
    made = config(engine={"max_model_len": 512}).experimental_configs["warm_up"]
    assert WarmUp.model_validate(made).max_model_len == 512


def test_a_replica_is_on_one_node_of_its_pool_whatever_ray_calls_its_card() -> None:
    ray = config(gpus=2).get_engine_config()
    assert ray.placement_strategy == "STRICT_PACK"
    assert ray.placement_bundles == [{"CPU": 0.5, "GPU": 1, "pool:p": 0.001}] * 2


def test_a_model_is_split_over_all_of_its_cards() -> None:
    split = arguments(gpus=4, engine={"pipeline_parallel_size": 2})
    assert (split["tensor_parallel_size"], split["pipeline_parallel_size"]) == (2, 2)
    assert arguments(gpus=4)["tensor_parallel_size"] == 4
    assert "pipeline_parallel_size" not in arguments(device="cpu", gpus=4, engine={"pipeline_parallel_size": 2})


def test_the_engine_itself_hears_of_its_share_of_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_RAY_PER_WORKER_GPUS", "VLLM_CACHE_ROOT", "FLASHINFER_WORKSPACE_BASE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SITE_TOKEN", "secret")
    ray = config(gpus=0.25)
    runtime_env = ray.get_engine_config().get_runtime_env_with_local_env_vars()
    weights = weights_of(tmp_path, Loading.CACHED)
    callback = WeightsCallback(ray, ctx_kwargs={"runtime_env": runtime_env}, **weights.model_dump(mode="json"))
    asyncio.run(callback.on_before_node_init())
    assert vllm.envs.VLLM_RAY_PER_WORKER_GPUS == 0.25
    assert os.environ["VLLM_CACHE_ROOT"] == os.environ["FLASHINFER_WORKSPACE_BASE"]
    assert runtime_env["env_vars"]["VLLM_CACHE_ROOT"] == os.environ["VLLM_CACHE_ROOT"]


def test_what_waits_in_a_replica_is_bounded_and_more_is_no_sign_of_illness() -> None:
    deployment = config(batching={"max_num_seqs": 8}).deployment_config
    assert (deployment["max_ongoing_requests"], deployment["max_queued_requests"]) == (80, 80)
    assert BackpressureConfig.model_validate(deployment["backpressure_config"]).status_code == 429


def test_engines_on_cpus_stay_eager() -> None:
    given = arguments(device="cpu")
    assert given["enforce_eager"] is True
    assert "gpu_memory_utilization" not in given


def test_workers_are_asked_for_their_cards_only_where_replicas_follow_them() -> None:
    follows: dict[str, Any] = {"autoscaling": {"policy": "utilisation"}}
    assert resolve_obj_by_qualname(arguments(**follows)["worker_extension_cls"]) is CardOfWorker
    assert "worker_extension_cls" not in arguments()
    assert "worker_extension_cls" not in arguments(device="cpu", **follows)


def test_the_deployment_has_the_name_by_which_it_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    config = LLMConfig(model_loading_config={"model_id": "qwen2.5-7b"}, server_cls=EngineServer)
    try:
        assert build_llm_deployment(config)._bound_deployment.name == engine_deployment("qwen2.5-7b")
    finally:
        # It asks a Ray cluster where it runs, and starts one for that.
        ray.shutdown()


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
