"""What replicas on a share of a card take of it."""

from typing import Any

import pytest
import torch

from clusters.accelerators import CARDS, CONTEXT_GB
from clusters.render import site_config
from clusters.spec import Task
from serve_app.site_args import ModelAppArgs
from serve_app.tensors.server import device_of
from tests.serve_app.routing.fleets import fleet, placement, site


def placed(**fields: Any) -> ModelAppArgs:
    """On an L4."""
    declared = fleet(site("a"), placements=(placement("a", **fields),))
    models = tuple(model.model_copy(update={"tasks": (Task.INFER,)}) for model in declared.models)
    there = declared.model_copy(update={"models": models})
    *_, app = site_config(there, there.sites[0], "localhost", 8000, "gpu")["applications"]
    return ModelAppArgs.model_validate(app["args"])


@pytest.mark.parametrize("count", [1, 4, 20])
def test_neighbours_and_their_contexts_fit_on_a_card(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    taken: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", taken.append)
    assert device_of(placed(gpus=1 / count)) == "cuda"
    memory_gb = CARDS["L4"].memory_gb
    assert 0 < count * (taken[0] * memory_gb + CONTEXT_GB) <= memory_gb
