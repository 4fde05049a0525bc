"""Composition root of a site's Serve applications. `config.yaml` names `model` and `agent` as import paths."""

import time
from typing import Any

from ray import serve
from ray.serve import Application

from clusters.spec import Task
from serve_app.agent import SiteAgent
from serve_app.nodes import SiteNodes
from serve_app.replicator import Replicator
from serve_app.site_args import AgentAppArgs, ModelAppArgs, NodesAppArgs, ReplicatorAppArgs
from weights.errors import AccessDenied, NotFound, WeightsError
from weights.releases.registry import require_release
from weights.store import Store, open_store

RELEASE_TIMEOUT_S = 6 * 3600.0
RELEASE_INTERVAL_S = 5.0


def model(args: dict[str, Any]) -> Application:
    """One model's application. Waits for the site's store to have the release, which its replicator brings there: until
    then no replica starts, and an older release goes on serving."""
    parsed = ModelAppArgs.model_validate(args)
    _await_release(open_store(parsed.store), parsed.model.name, parsed.model.release, parsed.placement.site)
    # vLLM takes seconds and 400 MB to import, torch not much less: only where a model is built, not beside the agent.
    if Task.INFER in parsed.model.tasks:
        from serve_app.tensors.server import tensor_app

        return tensor_app(parsed)
    from ray.serve.llm import build_openai_app

    from serve_app.engine import llm_config

    return build_openai_app({"llm_configs": [llm_config(parsed)]})


def _await_release(store: Store, model: str, release: str, site: str) -> None:
    """Returns once the store has it. What no waiting mends is raised at once, the rest, ReleaseMissing too, at last."""
    deadline = time.monotonic() + RELEASE_TIMEOUT_S
    while True:
        try:
            return require_release(store, model, release, site)
        except (AccessDenied, NotFound):
            raise
        except WeightsError:
            if time.monotonic() > deadline:
                raise
        time.sleep(RELEASE_INTERVAL_S)


def replicator(args: dict[str, Any]) -> Application:
    """The application that keeps the site's store, and its nodes' disks, as placements need them."""
    deployment = serve.deployment(Replicator, name="Replicator", ray_actor_options={"num_cpus": 0})
    return deployment.bind(ReplicatorAppArgs.model_validate(args))


def nodes(args: dict[str, Any]) -> Application:
    """The application that asks for spot nodes and for what stands beside them, and hears of their end."""
    deployment = serve.deployment(SiteNodes, name="SiteNodes", ray_actor_options={"num_cpus": 0})
    return deployment.bind(NodesAppArgs.model_validate(args))


def agent(args: dict[str, Any]) -> Application:
    """The site agent's application."""
    deployment = serve.deployment(
        serve.ingress()(SiteAgent), name="SiteAgent", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000
    )
    return deployment.bind(AgentAppArgs.model_validate(args))
