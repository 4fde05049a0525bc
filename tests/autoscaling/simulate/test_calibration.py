"""Engine models: fitted to measurements, kept in files, assumed of cards."""

import random
from pathlib import Path

import pytest

from autoscaling.simulate.calibration import Measured, fit, least_squares
from autoscaling.simulate.cards import assumed_model
from autoscaling.simulate.engine_model import EngineModel, load_model, save_model
from autoscaling.simulate.errors import BadModel, CannotFit, UnknownCard

TRUE = EngineModel(
    source="made up",
    step_s=0.05,
    sequence_s=0.002,
    kv_token_s=2e-6,
    prefill_token_s=3e-4,
    request_s=0.02,
    kv_tokens=9000,
)


def measured(noise: float = 0.0) -> list[Measured]:
    rng = random.Random(1)
    made = []
    for batch, prompt in [(1, 16), (1, 64), (1, 256), (1, 512), (2, 64), (4, 64), (8, 64), (16, 64), (16, 512)]:
        for _ in range(3):
            wrong = 1 + rng.uniform(-noise, noise)
            tpot_s = TRUE.decode_s(batch, batch * (prompt + 32)) * wrong
            made.append(Measured(batch, prompt, 64, TRUE.alone_s(prompt) * wrong, tpot_s))
    return made


def test_exact_measurements_give_the_model_back() -> None:
    found = fit(measured(), 9000, "made up")
    assert found.ttft_error < 1e-6
    assert found.tpot_error < 1e-6
    for name, value in TRUE.model_dump().items():
        assert getattr(found.model, name) == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)


def test_noise_moves_predictions_little() -> None:
    found = fit(measured(noise=0.05), 9000, "made up")
    for batch, prompt in ((1, 100), (12, 300)):
        assert found.model.decode_s(batch, batch * prompt) == pytest.approx(
            TRUE.decode_s(batch, batch * prompt), rel=0.05
        )
        assert found.model.alone_s(prompt) == pytest.approx(TRUE.alone_s(prompt), rel=0.05)
    assert 0 < found.ttft_error < 0.05


def test_no_coefficient_is_negative() -> None:
    falling = [Measured(1, n, 64, 0.5, 0.05) for n in (16, 64)] + [Measured(b, 16, 64, 0.5, 0.05 / b) for b in (2, 8)]
    model = fit(falling, 100, "made up").model
    assert model.sequence_s == 0
    assert model.kv_token_s == 0


def test_least_squares_leaves_out_what_the_rows_do_not_tell() -> None:
    assert least_squares([(1.0, 0.0), (1.0, 0.0)], [2.0, 2.0]) == pytest.approx([2.0, 0.0])


@pytest.mark.parametrize("kept", ["single", "batches"])
def test_too_little_is_refused(kept: str) -> None:
    some = [one for one in measured() if (one.batch == 1) == (kept == "single")]
    with pytest.raises(CannotFit, match="needs"):
        fit(some, 100, "made up")


def test_a_model_comes_back_from_its_file(tmp_path: Path) -> None:
    save_model(TRUE, tmp_path / "engine.json")
    assert load_model(tmp_path / "engine.json") == TRUE


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "the whole"),
        ('{"source": "x"}', "field step_s"),
        (TRUE.model_dump_json()[:-1] + ',"speed":1}', "field speed"),
    ],
)
def test_a_bad_file_is_named_with_its_field(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "engine.json"
    path.write_text(text)
    with pytest.raises(BadModel) as error:
        load_model(path)
    assert str(path) in str(error.value)
    assert told in str(error.value)


def test_bigger_cards_are_faster_and_fractions_slower() -> None:
    l4, a100, h100 = (assumed_model(card) for card in ("L4", "A100", "H100"))
    assert l4.step_s > a100.step_s > h100.step_s
    assert l4.kv_tokens < a100.kv_tokens
    half = assumed_model("A100", 0.5)
    assert half.prefill_token_s == pytest.approx(2 * a100.prefill_token_s)
    assert half.kv_tokens < a100.kv_tokens / 2


def test_what_is_unknown_or_too_small_is_refused() -> None:
    with pytest.raises(UnknownCard, match="nothing is known of accelerator 'Z9'"):
        assumed_model("Z9")
    with pytest.raises(UnknownCard, match="no room"):
        assumed_model("L4", 0.5)
