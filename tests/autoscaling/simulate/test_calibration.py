"""Engine models: fitted to measurements, kept in files, assumed of cards."""

import random
from pathlib import Path

import pytest

from autoscaling.simulate.calibration import FIRST_TOKEN, STEP, Answer, fit, together
from autoscaling.simulate.cards import assumed_model
from autoscaling.simulate.engine_model import EngineModel, load_model, pairs, save_model
from autoscaling.simulate.errors import BadModel, CannotFit, UnknownCard
from autoscaling.simulate.least_squares import least_squares

TRUE = EngineModel(
    source="made up",
    step_s=0.05,
    sequence_s=0.002,
    kv_token_s=2e-6,
    admission_s=0.003,
    prefill_token_s=3e-4,
    attention_s=2e-7,
    request_s=0.02,
    kv_tokens=9000,
)
SHAPES = [(1, 16), (1, 64), (1, 256), (1, 512), (2, 64), (4, 64), (8, 64), (16, 64), (16, 512)]


def measured(shapes: list[tuple[int, int]] = SHAPES, tokens: int = 64, noise: float = 0.0) -> list[list[list[Answer]]]:
    rng = random.Random(1)
    return [[batch(size, prompt, tokens, 1 + rng.uniform(-noise, noise)) for _ in range(3)] for size, prompt in shapes]


def batch(size: int, prompt: int, tokens: int, slower: float = 1.0) -> list[Answer]:
    """As an engine answers: the first request alone, the others with its second token, then all together."""
    whole = pairs(0, prompt)
    now = TRUE.request_s + TRUE.step_s + TRUE.prefill_s(1, prompt, whole)
    times = [[now], *([] for _ in range(size - 1))]
    others = size - 1
    if others:
        now += TRUE.decode_s(1, prompt) + TRUE.prefill_s(others, others * prompt, others * whole)
        for each in times:
            each.append(now)
    while len(times[-1]) < tokens:
        decoding = [each for each in times if len(each) < tokens]
        now += TRUE.decode_s(len(decoding), sum(prompt + len(each) - 1 for each in decoding))
        for each in decoding:
            each.append(now)
    return [Answer(0.0, tuple(slower * time for time in each), prompt, len(each)) for each in times]


def test_exact_measurements_give_the_model_back() -> None:
    found = fit(measured(), 9000, "made up")
    assert {check.what for check in found.checks} == {FIRST_TOKEN, STEP}
    assert all(abs(check.error) < 1e-6 for check in found.checks)
    for name, value in TRUE.model_dump().items():
        assert getattr(found.model, name) == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)


def test_noise_moves_predictions_little() -> None:
    found = fit(measured(noise=0.05), 9000, "made up")
    for size, prompt in ((1, 100), (12, 300)):
        assert found.model.decode_s(size, size * prompt) == pytest.approx(TRUE.decode_s(size, size * prompt), rel=0.05)
        assert found.model.alone_s(prompt) == pytest.approx(TRUE.alone_s(prompt), rel=0.05)
    assert 0 < found.error(FIRST_TOKEN) < 0.05


def test_one_spoiled_repetition_changes_nothing() -> None:
    experiments = measured()
    for repeated, (size, prompt) in zip(experiments, SHAPES, strict=True):
        repeated[1] = batch(size, prompt, 64, slower=5.0)
    assert fit(experiments, 9000, "made up").model.step_s == pytest.approx(TRUE.step_s, rel=1e-6)


def test_events_with_several_tokens_count_as_many() -> None:
    def coarse(answer: Answer) -> Answer:
        return Answer(answer.sent, answer.times[::2], answer.prompt_tokens, answer.output_tokens)

    experiments = [[[coarse(one) for one in same] for same in repeated] for repeated in measured(tokens=65)]
    found = fit(experiments, 9000, "made up").model
    assert found.decode_s(8, 1000) == pytest.approx(TRUE.decode_s(8, 1000), rel=0.05)
    assert found.alone_s(300) == pytest.approx(TRUE.alone_s(300), rel=0.05)


def test_a_batch_that_never_ran_together_is_left_out() -> None:
    first, second = batch(2, 64, 20)
    late = Answer(0.0, tuple(time + first.last for time in second.times), 64, 20)
    assert not together([first, late])
    found = fit([*measured(), [[first, late]] * 3], 9000, "made up")
    assert found.model.step_s == pytest.approx(TRUE.step_s, rel=1e-6)


def test_no_coefficient_is_negative() -> None:
    quicker = [[batch(size, 64, 64, slower=1 / size)] for size in (1, 2, 4, 8)]
    model = fit([*quicker, [batch(1, 256, 64)]], 100, "made up").model
    assert model.sequence_s == 0
    assert model.kv_token_s >= 0


def test_least_squares_leaves_out_what_the_rows_do_not_tell() -> None:
    assert least_squares([(1.0, 0.0), (1.0, 0.0)], [2.0, 2.0]) == pytest.approx([2.0, 0.0])


@pytest.mark.parametrize("kept", ["single", "batches"])
def test_too_little_is_refused(kept: str) -> None:
    some = [shape for shape in SHAPES if (shape[0] == 1) == (kept == "single")]
    with pytest.raises(CannotFit, match="needs"):
        fit(measured(some), 100, "made up")


def test_answers_too_short_to_decode_together_are_refused() -> None:
    with pytest.raises(CannotFit, match="ask for more tokens"):
        fit(measured(tokens=4), 100, "made up")


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
