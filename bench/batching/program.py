"""A program whose weights weigh more than its arithmetic: a row alone pays for reading them all."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch.export import Dim

from clusters.storage import StoreSpec, Verify
from weights.copying.deliver import Terms
from weights.copying.journal import Journal
from weights.copying.pace import SILENT, Pace
from weights.parallel import Lanes
from weights.push import push
from weights.sources.source import open_source
from weights.store import open_store

FEATURES = 256
HIDDEN = 4096
CLASSES = 8


def pushed(model: str, site: str, store: StoreSpec) -> str:
    """The release of it that the store holds now."""
    with tempfile.TemporaryDirectory() as scratch, Lanes(2) as lanes:
        folder = Path(scratch, "source")
        _export(folder)
        terms = Terms(lanes, Pace("bench"), Journal(Path(scratch, "journal")), Verify.FULL, SILENT)
        source = open_source(str(folder), Path(scratch))
        return push(model, source, open_store(store), site, datetime.now(UTC), terms).manifest.release


def _export(folder: Path) -> None:
    torch.manual_seed(1)
    layers = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, CLASSES),
    )
    exported = torch.export.export(layers.eval(), (torch.zeros(2, FEATURES),), dynamic_shapes=({0: Dim("rows")},))
    folder.mkdir()
    torch.export.save(exported, folder / "model.pt2")
    tensors = {
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, FEATURES]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, CLASSES]}],
    }
    (folder / "tensors.json").write_text(json.dumps(tensors))
