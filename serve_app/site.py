"""Composition root of a site's Serve applications. `config.yaml` names `model` and `agent` as import paths."""

from typing import Any

from ray import serve
from ray.serve import Application

from serve_app.agent import SiteAgent
from serve_app.site_args import AgentAppArgs, ModelAppArgs
from weights.registry import require_release
from weights.store import open_store


def model(args: dict[str, Any]) -> Application:
    """One model's application. Refused (ReleaseMissing) when this site's store lacks the release."""
    # vLLM takes seconds and 400 MB to import: only where a model is built, not beside the agent.
    from ray.serve.llm import build_openai_app

    from serve_app.engine import llm_config

    parsed = ModelAppArgs.model_validate(args)
    require_release(open_store(parsed.store), parsed.model.name, parsed.model.release, parsed.placement.site)
    return build_openai_app({"llm_configs": [llm_config(parsed)]})


def agent(args: dict[str, Any]) -> Application:
    """The site agent's application."""
    deployment = serve.deployment(
        serve.ingress()(SiteAgent), name="SiteAgent", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000
    )
    return deployment.bind(AgentAppArgs.model_validate(args))
