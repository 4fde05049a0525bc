"""Releases that are exported once for all tests, and sites that serve them without Ray."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.serve import context
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve._private.config import DeploymentConfig
from ray.serve.schema import ReplicaRank

from serve_app.tensors.program import Program
from tests.serve_app.tensors.programs import classifier_release, reranker_release
from tests.serve_app.tensors.sites import TensorSite


@pytest.fixture(scope="package", autouse=True)
def _replica() -> Iterator[None]:
    """`serve.batch` asks its replica for one setting, to warn of it: here is one to ask."""
    context._set_internal_replica_context(
        replica_id=ReplicaID("here", DeploymentID("tensors")),
        servable_object=None,
        _deployment_config=DeploymentConfig(max_ongoing_requests=1000),
        rank=ReplicaRank(rank=0, node_rank=0, local_rank=0),
        world_size=1,
    )
    yield
    context._INTERNAL_REPLICA_CONTEXT = None


@pytest.fixture(scope="session")
def classifier_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_release(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def reranker_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reranker_release(tmp_path_factory.mktemp("reranker"))


@pytest.fixture
def classifier_program(classifier_directory: Path) -> Program:
    return Program.load(classifier_directory, "cpu")


@pytest.fixture
def reranker_program(reranker_directory: Path) -> Program:
    return Program.load(reranker_directory, "cpu")


@pytest.fixture(scope="module")
def tensor_site(classifier_directory: Path, reranker_directory: Path) -> Iterator[TensorSite]:
    with TensorSite("east", {"classifier": classifier_directory, "reranker": reranker_directory}) as site:
        yield site


@pytest.fixture(scope="module")
def other_site(classifier_directory: Path, reranker_directory: Path) -> Iterator[TensorSite]:
    with TensorSite("west", {"classifier": classifier_directory, "reranker": reranker_directory}) as site:
        yield site
