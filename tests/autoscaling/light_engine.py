"""What stands for an engine where only Ray's part is of interest. `config.yaml` names it as an import path."""

from typing import Any

from ray import serve
from ray.serve import Application

from autoscaling.ray_signals import RUNNING_METRIC
from clusters.render import engine_deployment
from serve_app.site_args import ModelAppArgs


class Engine:
    """Idle; what there is to do is held in front of it."""

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {RUNNING_METRIC: 0.0}


def build(args: dict[str, Any]) -> Application:
    """In place of `serve_app.site:model`, of the same arguments."""
    deployment = serve.deployment(
        Engine,
        name=engine_deployment(ModelAppArgs.model_validate(args).model.name),
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=1,
    )
    return deployment.bind()
