"""A program is loaded without unpickling, computes what the module computed, and is what its signature says."""

import json
import logging
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim

from serve_app.tensors.errors import BadRelease, Broken, Unable
from serve_app.tensors.program import Program
from tests.serve_app.tensors.programs import (
    CLASSIFIER_TENSORS,
    FEATURES,
    RERANKER_TENSORS,
    VOCABULARY,
    classifier,
    reranker,
    written,
)


@pytest.mark.parametrize("rows", [1, 2, 5, 64])
def test_it_computes_what_the_module_computed(classifier_program: Program, rows: int) -> None:
    features = torch.randn(rows, FEATURES, generator=torch.Generator().manual_seed(rows))
    (given,) = classifier_program.run([features])
    with torch.inference_mode():
        torch.testing.assert_close(given, classifier()(features))


def test_several_inputs_and_outputs_keep_their_order(reranker_program: Program) -> None:
    query, document = torch.randint(VOCABULARY, (3, 4)), torch.randint(VOCABULARY, (3, 9))
    score, fits = reranker_program.run([query, document])
    with torch.inference_mode():
        expected, _ = reranker()(query, document)
    torch.testing.assert_close(score, expected)
    assert fits.tolist() == (expected > 0).tolist()


def test_outputs_may_be_a_mapping_by_name(tmp_path: Path) -> None:
    class Named(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"twice": x * 2, "half": x / 2}

    tensors = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
        "outputs": [{"name": name, "datatype": "FP32", "shape": [-1]} for name in ("half", "twice")],
    }
    program = Program.load(release(tmp_path, Named(), tensors, torch.ones(2)), "cpu")
    half, twice = program.run([torch.tensor([4.0])])
    assert (half.item(), twice.item()) == (2.0, 8.0)


def test_an_input_that_it_fails_on_is_told_apart_from_a_broken_program(
    reranker_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = torch.ones(1, 4, dtype=torch.int64)
    with pytest.raises(Unable, match="index out of range"):
        reranker_program.run([right * VOCABULARY, right])
    monkeypatch.setattr(reranker_program, "_module", broken)
    with pytest.raises(Broken, match="on its own example: RuntimeError: device lost"):
        reranker_program.run([right, right])


def broken(*_: torch.Tensor) -> Any:
    raise RuntimeError("device lost\nand much more")


FEATURE = {"name": "features", "datatype": "FP32", "shape": [-1, FEATURES]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": [{"name": "f", "datatype": "FP64", "shape": [-1, FEATURES]}]}, "is FP64, and model.pt2 takes"),
        ({"inputs": [{"name": "f", "datatype": "FP32", "shape": [-1, 9]}]}, r"shape \[-1, 9\], and .* \[-1, 8\]"),
        ({"inputs": [{"name": "f", "datatype": "FP32", "shape": [-1]}]}, r"shape \[-1\], and"),
        (
            {"inputs": CLASSIFIER_TENSORS["inputs"] + RERANKER_TENSORS["inputs"]},
            "names 3 inputs, and model.pt2 takes 1",
        ),
        ({"outputs": [{"name": "p", "datatype": "FP16", "shape": [-1, 3]}]}, "'p' is FP16, and model.pt2 gives"),
        ({"outputs": [{"name": "p", "datatype": "FP32", "shape": [-1, 4]}]}, r"shape \[-1, 4\], and model.pt2 gives"),
        ({"outputs": RERANKER_TENSORS["outputs"]}, "something else than the 2 tensors"),
        ({"inputs": [{"name": "f", "datatype": "BYTES", "shape": [-1, 8]}]}, "inputs.0.datatype: Input should be"),
        ({"inputs": [{"name": "f", "datatype": "FP32", "shape": [2, 8]}]}, "first dimension is that of rows"),
        ({"inputs": CLASSIFIER_TENSORS["inputs"] * 2}, "'features' is named 2 times"),
        ({"inputs": []}, "at least 1 item"),
        ({"inputs": [{**FEATURE, "minimum": 0}]}, "FP32 takes no minimum or maximum"),
        (
            {"inputs": [{**FEATURE, "datatype": "INT64", "minimum": 2, "maximum": 1}]},
            "minimum 2 is more than the maximum 1",
        ),
        ({"inputs": [{**FEATURE, "datatype": "INT64", "maximum": 0.5}]}, "inputs.0.maximum: Input should be"),
        (
            {"outputs": [{"name": "p", "datatype": "INT64", "shape": [-1, 3], "maximum": 1}]},
            "'p' has a minimum or maximum, which is for inputs",
        ),
        ({"more": 1}, "more: Extra inputs"),
    ],
)
def test_a_signature_that_is_not_the_programs_is_refused(
    tmp_path: Path, classifier_directory: Path, change: dict[str, Any], message: str
) -> None:
    shutil.copytree(classifier_directory, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tensors.json").write_text(json.dumps({**CLASSIFIER_TENSORS, **change}))
    with pytest.raises(BadRelease, match=message):
        Program.load(tmp_path, "cpu").warm_up((1, 4))


def test_bounds_that_its_own_example_breaks_are_refused(tmp_path: Path, reranker_directory: Path) -> None:
    shutil.copytree(reranker_directory, tmp_path, dirs_exist_ok=True)
    query, document = RERANKER_TENSORS["inputs"]
    (tmp_path / "tensors.json").write_text(
        json.dumps({**RERANKER_TENSORS, "inputs": [query, {**document, "minimum": 2}]})
    )
    with pytest.raises(BadRelease, match="the example of the input 'document' holds 1, and its minimum is 2"):
        Program.load(tmp_path, "cpu")


@pytest.mark.parametrize("name", ["model.pt2", "tensors.json"])
def test_a_release_that_lacks_a_file_says_so(tmp_path: Path, classifier_directory: Path, name: str) -> None:
    shutil.copytree(classifier_directory, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    with pytest.raises(BadRelease, match=f"{name} can't be read: No such file"):
        Program.load(tmp_path, "cpu")


def test_a_program_of_a_fixed_batch_is_refused_at_its_warm_up(tmp_path: Path) -> None:
    exported = torch.export.export(classifier(), (torch.zeros(2, FEATURES),))
    with pytest.raises(BadRelease, match=r"takes \[2, 8\]"):
        Program.load(written(tmp_path, exported, CLASSIFIER_TENSORS), "cpu")
    few = torch.export.export(
        classifier(), (torch.zeros(2, FEATURES),), dynamic_shapes={"features": {0: Dim("rows", max=4)}}
    )
    with pytest.raises(BadRelease, match=r"fails on a batch of 8: .*lower max_num_seqs"):
        Program.load(written(tmp_path, few, CLASSIFIER_TENSORS), "cpu").warm_up((1, 8))


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("data/sample_inputs/model.pt", "holds more than tensors"),
        ("data/weights/model.pt", "which is no plain tensor"),
        ("data/constants/opaque_obj_0", "which is no plain tensor"),
        ("data/aotinductor/model/model.so", "which is no plain tensor"),
    ],
)
def test_nothing_of_an_archive_is_unpickled(
    tmp_path: Path, classifier_directory: Path, record: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(classifier_directory, tmp_path, dirs_exist_ok=True)
    touched = tmp_path / "touched"
    with (tmp_path / "evil").open("wb") as file:
        torch.save((Evil(touched),), file)
    rewrite(tmp_path / "model.pt2", {record: (tmp_path / "evil").read_bytes()})
    with pytest.raises(BadRelease, match=message):
        Program.load(tmp_path, "cpu")
    assert not touched.exists()
    if record == "data/sample_inputs/model.pt":  # torch alone would have; and says so in a line that is no format
        monkeypatch.setattr(logging.getLogger("torch._export.serde.serialize"), "disabled", True)
        torch.export.load(tmp_path / "model.pt2")
        assert touched.exists()


def test_weights_that_are_said_to_be_pickled_are_refused(tmp_path: Path, classifier_directory: Path) -> None:
    shutil.copytree(classifier_directory, tmp_path, dirs_exist_ok=True)
    name = "data/weights/model_weights_config.json"
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        (full,) = [each for each in archive.namelist() if each.endswith(name)]
        config = json.loads(archive.read(full))
    next(iter(config["config"].values()))["use_pickle"] = True
    rewrite(tmp_path / "model.pt2", {name: json.dumps(config).encode()})
    with pytest.raises(BadRelease, match="names pickled tensors"):
        Program.load(tmp_path, "cpu")


def test_the_older_layout_and_other_files_are_refused(tmp_path: Path, classifier_directory: Path) -> None:
    shutil.copytree(classifier_directory, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.7")
        archive.writestr("serialized_state_dict.pt", pickle.dumps(Evil(tmp_path / "touched")))
    with pytest.raises(BadRelease, match="record 'version'"):
        Program.load(tmp_path, "cpu")
    path.write_bytes(b"not an archive")
    with pytest.raises(BadRelease, match=r"no archive of torch\.export\.save"):
        Program.load(tmp_path, "cpu")


def test_an_archive_that_was_cut_short_inside_is_refused(tmp_path: Path, classifier_directory: Path) -> None:
    shutil.copytree(classifier_directory, tmp_path, dirs_exist_ok=True)
    rewrite(tmp_path / "model.pt2", {"models/model.json": b"{}"})
    with pytest.raises(BadRelease, match="can't be loaded by torch"):
        Program.load(tmp_path, "cpu")


def release(directory: Path, module: torch.nn.Module, tensors: dict[str, Any], *example: torch.Tensor) -> Path:
    rows = Dim("rows")
    exported = torch.export.export(module.eval(), example, dynamic_shapes=tuple({0: rows} for _ in example))
    return written(directory, exported, tensors)


def rewrite(path: Path, records: dict[str, bytes]) -> None:
    """Records of an archive replaced, or added."""
    with zipfile.ZipFile(path) as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    root = next(iter(content)).partition("/")[0]
    content |= {f"{root}/{name}": data for name, data in records.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
