"""The committed demo models are small, load as any Hugging Face folder, and know the FAQ."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

from weights.demo_model import DEMO, nearest, read_faq, reply

CHAT, EMBED = DEMO / "chat", DEMO / "embed"
FAQ = read_faq()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    loaded = AutoTokenizer.from_pretrained(CHAT)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


@pytest.mark.parametrize("folder", [CHAT, EMBED], ids=lambda folder: folder.name)
def test_small_enough_for_git_and_free_of_pickles(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    assert {path.suffix for path in files} == {".safetensors", ".json", ".jinja"}


@pytest.mark.parametrize("text", ["A site is one Ray cluster.", "  two spaces\n\ttab", "Zürich, 東京 🚀", "`make`"])
def test_tokenizer_round_trips(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_chat_template_opens_the_next_turn_or_continues_the_last(tokenizer: PreTrainedTokenizerFast) -> None:
    def render(messages: list[dict[str, str]], **options: Any) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))

    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a site?"}]
    rendered = "<|system|>Be brief.<|end|><|user|>What is a site?<|end|>"
    assert render(asked) == rendered
    assert render(asked, add_generation_prompt=True) == rendered + "<|assistant|>"
    begun = [*asked, {"role": "assistant", "content": "A site is"}]
    assert render(begun, continue_final_message=True) == rendered + "<|assistant|>A site is"


def test_answers_the_faq_word_for_word(tokenizer: PreTrainedTokenizerFast) -> None:
    model = LlamaForCausalLM.from_pretrained(CHAT)
    wrong = [pair.question for pair in FAQ if reply(model, tokenizer, pair.question) != pair.answer]
    assert not wrong, "docs/faq.md changed? `python -m weights.demo_model` trains the models again"


def test_questions_are_nearest_to_their_own_answers(tokenizer: PreTrainedTokenizerFast) -> None:
    model = LlamaModel.from_pretrained(EMBED)
    assert nearest(model, tokenizer, FAQ) >= 0.8 * len(FAQ)
