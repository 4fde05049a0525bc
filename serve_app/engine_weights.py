"""What an engine loads: a release on the disks of its nodes, which may not lose it, or one streamed from the store."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ray.llm._internal.common.callbacks.base import CallbackBase

from clusters.fields import Spec
from clusters.spec import Loading
from clusters.storage import CacheSpec, StoreSpec
from serve_app.gate import site_token
from serve_app.mending import mended
from serve_app.start_up import journal
from weights.errors import WeightsError
from weights.node.cache import fetch
from weights.node.compile_cache import CompileCache
from weights.node.pins import pinned
from weights.node.slot import Slot
from weights.releases.registry import release_prefix
from weights.store import open_store

logger = logging.getLogger("ray.serve")

STREAMED_FORMAT = "runai_streamer"


class EngineWeights(Spec):
    """All that a node needs to know to give an engine its weights. `engine`: see `weights.node.compile_cache`."""

    model: str
    release: str
    site: str
    engine: str
    loading: Loading
    store: StoreSpec
    weights: CacheSpec
    token_variable: str

    def prepare(self) -> str:
        """The path of the model for vLLM, once this node has what lies there. Nothing of it is evicted before this
        process ends. Raises WeightsError."""
        self._slot.hold()
        self._restore_compiled()
        if self.loading is Loading.STREAMED:
            return streamed_path(self.store, self.model, self.release)
        path = fetch(
            open_store(self.store),
            self.model,
            self.release,
            self.weights.cache_dir,
            site=self.site,
            parallel_parts=self.weights.parallel_parts,
            cache_bytes=self.weights.cache_bytes,
            keep=pinned(Path(self.weights.cache_dir)),
        )
        return str(path)

    def environment(self) -> dict[str, str]:
        """What vLLM and FlashInfer read: both keep there what they compile."""
        streaming = streaming_environment(self.store) if self.loading is Loading.STREAMED else {}
        compiled = str(self._compiled.directory)
        return {"VLLM_CACHE_ROOT": compiled, "FLASHINFER_WORKSPACE_BASE": compiled, **streaming}

    def save_compiled(self) -> None:
        """Keeps in the site's store what this node's engine has compiled."""
        try:
            self._compiled.save(open_store(self.store), site_token(self.token_variable, os.environ))
        except (WeightsError, OSError) as error:
            logger.warning("what %s compiled is not kept: %s", self.model, error)

    def _restore_compiled(self) -> None:
        try:
            self._compiled.restore(open_store(self.store), site_token(self.token_variable, os.environ))
        except (WeightsError, OSError) as error:
            logger.warning("%s is compiled anew: %s", self.model, error)

    @property
    def _slot(self) -> Slot:
        return Slot(Path(self.weights.cache_dir), self.model, self.release)

    @property
    def _compiled(self) -> CompileCache:
        return CompileCache(self._slot, self.engine)


def streamed_path(store: StoreSpec, model: str, release: str) -> str:
    """A url that vLLM streams from; of a store that is a directory, the release's own."""
    root = unquote(urlsplit(store.url).path) if store.url.startswith("file://") else store.url
    return f"{root.rstrip('/')}/{release_prefix(model, release).rstrip('/')}"


def streaming_arguments(store: StoreSpec) -> dict[str, Any]:
    """vLLM's, for a model that is streamed from this store."""
    return {} if store.url.startswith("file://") else {"load_format": STREAMED_FORMAT}


def streaming_environment(store: StoreSpec) -> dict[str, str]:
    """What the streamer, the AWS SDKs and Google's clients read, for what fleet.yaml says of the store."""
    variables: dict[str, str | None] = {
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_PROFILE": store.profile,
        "AWS_REGION": store.region,
        "AWS_DEFAULT_REGION": store.region,
    }
    if store.url.startswith("gs://"):
        variables = {
            "GOOGLE_APPLICATION_CREDENTIALS": store.credentials_file,
            "RUNAI_STREAMER_GCS_CREDENTIAL_FILE": store.credentials_file,
            "STORAGE_EMULATOR_HOST": store.endpoint,
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": store.endpoint,
        }
    elif store.endpoint:
        variables["RUNAI_STREAMER_S3_ENDPOINT"] = store.endpoint
        # As our own client does it: such servers have no DNS name per bucket, nor today's checksums.
        variables["RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING"] = "0"
        variables["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
        variables["AWS_RESPONSE_CHECKSUM_VALIDATION"] = "when_required"
    return {name: value for name, value in variables.items() if value}


class WeightsCallback(CallbackBase):  # type: ignore[misc]
    """Before the engine starts: this replica's node has what it will load. `kwargs` are EngineWeights."""

    async def on_before_node_init(self) -> None:
        weights = EngineWeights.model_validate(self.kwargs)
        path = await mended(lambda: asyncio.to_thread(weights.prepare), weights.model, weights.release)
        journal.ended("weights")
        variables = self.ctx.runtime_env["env_vars"]
        variables.update(weights.environment())
        # Ray gives them to the tasks and actors of the engine alone, whose core is a child of this process.
        os.environ.update(variables)
        self.llm_config.get_engine_config().hf_model_id = path
        self.ctx.run_init_node = False
