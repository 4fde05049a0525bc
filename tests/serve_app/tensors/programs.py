"""Small programs of tensors, exported as their owners would, and the releases that hold them."""

import json
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

FEATURES = 8
CLASSES = 3
VOCABULARY = 50
LENGTH = 6


class Classifier(torch.nn.Module):
    """A network of two layers: rows of features to probabilities of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(FEATURES, 16)
        self.out = torch.nn.Linear(16, CLASSES)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.out(torch.relu(self.hidden(features))), dim=-1)


class Reranker(torch.nn.Module):
    """How well documents fit queries, both as token ids; of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(VOCABULARY, 16)

    def forward(self, query: torch.Tensor, document: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked, told = self.words(query).mean(1), self.words(document).mean(1)
        score = (asked * told).sum(-1)
        return score, score > 0


CLASSIFIER_TENSORS: dict[str, Any] = {
    "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, FEATURES]}],
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, CLASSES]}],
}
RERANKER_TENSORS: dict[str, Any] = {
    "inputs": [
        {"name": "query", "datatype": "INT64", "shape": [-1, -1], "minimum": 0, "maximum": VOCABULARY - 1},
        {"name": "document", "datatype": "INT64", "shape": [-1, -1]},
    ],
    "outputs": [
        {"name": "score", "datatype": "FP32", "shape": [-1]},
        {"name": "fits", "datatype": "BOOL", "shape": [-1]},
    ],
}


def classifier() -> Classifier:
    """The same one each time."""
    torch.manual_seed(7)
    return Classifier().eval()


def reranker() -> Reranker:
    torch.manual_seed(8)
    return Reranker().eval()


def classifier_release(directory: Path) -> Path:
    """A directory as `rayfleet weights push` takes it."""
    rows = Dim("rows")
    exported = torch.export.export(classifier(), (torch.zeros(2, FEATURES),), dynamic_shapes={"features": {0: rows}})
    return written(directory, exported, CLASSIFIER_TENSORS)


def reranker_release(directory: Path) -> Path:
    rows = Dim("rows")
    exported = torch.export.export(
        reranker(),
        (torch.ones(2, LENGTH, dtype=torch.int64), torch.ones(2, LENGTH + 1, dtype=torch.int64)),
        dynamic_shapes={"query": {0: rows, 1: Dim("words")}, "document": {0: rows, 1: Dim("more")}},
    )
    return written(directory, exported, RERANKER_TENSORS)


def written(directory: Path, exported: torch.export.ExportedProgram, tensors: dict[str, Any]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    torch.export.save(exported, directory / "model.pt2")
    (directory / "tensors.json").write_text(json.dumps(tensors))
    return directory
