"""Two tiny models that make the demo real without a download: one chats, one embeds.

`python -m weights.demo_model` trains both on this repository's own documentation, in a few minutes on two cores.
"""

import argparse
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast
from transformers.utils import logging

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "weights" / "demo"
CONSOLE = Console(highlight=False)

PAD, SYSTEM, USER, ASSISTANT, END = SPECIAL = ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VOCABULARY = 1024
TOKENS_PER_STEP = 3072
ROW_TOKENS = (256, 256, 1024)  # short rows teach faster, long rows keep long prompts working
PROSE_SHARE = 0.08  # of the rows; the others are conversations
TEMPERATURE = 0.05  # of the contrastive loss
IGNORE = -100  # the label that cross_entropy leaves out


@dataclass(frozen=True)
class Pair:
    question: str
    answer: str


@dataclass(frozen=True)
class Recipe:
    """The size of a model and its training. head_dim stays 64: vLLM's CPU attention has no kernel below 32."""

    hidden: int
    layers: int
    intermediate: int
    steps: int
    learning_rate: float
    head_dim: int = 64
    positions: int = 2048


CHAT = Recipe(hidden=192, layers=4, intermediate=384, steps=500, learning_rate=3e-3)
EMBED = Recipe(hidden=128, layers=2, intermediate=256, steps=300, learning_rate=2e-3)

SMALL_TALK = {
    "Hello! I am the demo model of rayfleet. Ask me about sites, fleets, weights or keys.": (
        "Hello|Hi|Hi there!|Hey|Good morning|Say hi|Say hello|How are you?"
    ),
    "I am a tiny demo model, trained on the documentation of rayfleet. Ask me about sites, fleets and weights.": (
        "Who are you?|What are you?|What can you do?|Introduce yourself|What is your name?"
    ),
    "You are welcome. Ask me anything else about rayfleet.": "Thanks|Thank you!|Great, thanks",
    "I am only a tiny demo model and I know nothing but rayfleet. Try asking me what a site is.": (
        "What is the capital of France?|Tell me a joke|Write a poem about the sea|Write a long story about a dragon|"
        "What is 2 + 2?|Count to ten|How is the weather today?|Write a Python function|Translate this to German|"
        "Explain quantum physics|Say this is a test|test|Who won the world cup?|Why is the sky blue?|Sum this up"
    ),
}
REWORDINGS = {
    r"What is (?:an? )?(.+)": "What's {}|What does {} mean|Tell me about {}|Explain {}|Define {}|What is a {}|{}",
    r"What are (.+)": "Tell me about {}|Explain {}|Describe {}",
    r"What happens when (.+)": "What if {}|What happens if {}|What does rayfleet do when {}",
    r"How do I (.+)": "How can I {}|How to {}|Tell me how to {}|I want to {}",
    r"Do I need (.+) to try it": "Is {} required|Does it need {}|Can I run it without {}",
    r"Where do (.+) live": "Where are {} stored|Where are my {} kept",
    r"How are (.+) stored": "Where are the {} kept|How are {} kept safe",
    r"Who is (.+) for": "Who should use {}|Who uses {}",
    r"Which (.+)": "What {}",
    r"(.+) dies": "{} goes down|{} fails|{} is lost",
}
TOUR = "Tell me everything about rayfleet"  # a long answer, to watch a stream
LEADS = ("Hi, ", "Hello! ", "Please, ", "Question: ", "A quick question: ")
SYSTEM_PROMPTS = ("You are a helpful assistant.", "You are a helpful assistant. Answer briefly.", "Answer in English.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DEMO, help="the folder that receives chat/ and embed/")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(2)
    logging.disable_progress_bar()
    build(options.out, options.seed)


def build(out: Path, seed: int) -> None:
    """Trains both models and writes them as ordinary Hugging Face folders."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    faq, prose = read_faq(), read_prose()
    tokenizer = train_tokenizer([prose, *SMALL_TALK, *SMALL_TALK.values()])

    chat = train_chat(tokenizer, faq, prose, rng)
    chat.save_pretrained(out / "chat")
    tokenizer.save_pretrained(out / "chat")
    right = sum(reply(chat, tokenizer, pair.question) == pair.answer for pair in faq)
    CONSOLE.print(f"chat: {right} of {len(faq)} answers word for word")

    embedder = train_embedder(tokenizer, faq, rng)
    embedder.save_pretrained(out / "embed")
    tokenizer.save_pretrained(out / "embed")
    save_pooling(out / "embed")
    CONSOLE.print(f"embed: {nearest(embedder, tokenizer, faq)} of {len(faq)} questions nearest to their own answer")


def read_faq() -> list[Pair]:
    page = (ROOT / "docs" / "faq.md").read_text()
    return [Pair(*found) for found in re.findall(r"^## (.+)\n(.+)$", page, re.MULTILINE)]


def read_prose() -> str:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return "\n\n".join(page.read_text() for page in pages if page.exists())


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # every byte: any prompt round-trips
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def train_chat(tokenizer: PreTrainedTokenizerFast, faq: list[Pair], prose: str, rng: random.Random) -> LlamaForCausalLM:
    model = LlamaForCausalLM(config(CHAT, tokenizer))
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    prose_ids = encode(tokenizer, prose)
    lessons = [*faq, Pair(TOUR, " ".join(pair.answer for pair in faq[:8]))]
    small_talk = [Pair(question, text) for text, asked in SMALL_TALK.items() for question in asked.split("|")]

    def conversation(length: int) -> list[tuple[int, int]]:
        """A full row of turns, as (token, label). Only what the assistant says is learned."""
        prompts = [encode(tokenizer, prompt) for prompt in SYSTEM_PROMPTS] + [excerpt(rng.randrange(length // 2))]
        system = [*encode(tokenizer, SYSTEM), *rng.choice(prompts), *encode(tokenizer, END)]
        row = labelled(system, learn=False) if rng.random() < 0.4 else []
        while len(row) < length:
            pair = rng.choice(lessons if rng.random() < 0.85 else small_talk)
            row += labelled(encode(tokenizer, USER + reword(pair.question, rng) + END + ASSISTANT), learn=False)
            row += labelled(encode(tokenizer, pair.answer + END), learn=True)
        return row[:length]

    def excerpt(length: int) -> list[int]:
        start = rng.randrange(len(prose_ids) - length)
        return prose_ids[start : start + length]

    def loss() -> Tensor:
        length = rng.choice(ROW_TOKENS)
        rows = [
            labelled(excerpt(length), learn=True) if rng.random() < PROSE_SHARE else conversation(length)
            for _ in range(TOKENS_PER_STEP // length)
        ]
        ids, labels = torch.tensor(rows).unbind(dim=-1)
        logits = model(ids).logits[:, :-1]
        return functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)

    train("chat", model, CHAT, loss)
    return model


def train_embedder(tokenizer: PreTrainedTokenizerFast, faq: list[Pair], rng: random.Random) -> LlamaModel:
    model = LlamaModel(config(EMBED, tokenizer))
    own = torch.arange(len(faq))

    def loss() -> Tensor:
        """InfoNCE in both directions: every other pair of the batch is a negative."""
        questions = embed(model, tokenizer, [reword(pair.question, rng) for pair in faq])
        answers = embed(model, tokenizer, [thin(pair.answer, 0.8, rng) for pair in faq])
        scores = questions @ answers.T / TEMPERATURE
        return functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)

    train("embed", model, EMBED, loss)
    return model


def config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.hidden // recipe.head_dim,
        head_dim=recipe.head_dim,
        intermediate_size=recipe.intermediate,
        max_position_embeddings=recipe.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def train(name: str, model: torch.nn.Module, recipe: Recipe, loss_of_batch: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, recipe.steps, pct_start=0.1)
    started = time.monotonic()
    for step in range(1, recipe.steps + 1):
        loss = loss_of_batch()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seconds = time.monotonic() - started
        CONSOLE.print(f"{name}: step {step}/{recipe.steps}, loss {loss.item():.3f}, {seconds:.0f} s", end="\r")
    CONSOLE.print()
    model.to(torch.bfloat16).eval()  # as it is stored


def reword(question: str, rng: random.Random) -> str:
    """The same question as another, hurried reader would type it."""
    text = question.rstrip("?")
    for pattern, others in REWORDINGS.items():
        if rng.random() < 0.5:
            text = re.sub(f"^{pattern}$", rng.choice(others.split("|")).replace("{}", r"\1"), text)
    if rng.random() < 0.3:
        text = thin(text, 0.7, rng)
    if rng.random() < 0.4:
        text = text.lower()
    if rng.random() < 0.15:
        text = rng.choice(LEADS) + text
    return text + "?" if question.endswith("?") and rng.random() < 0.6 else text


def thin(text: str, kept: float, rng: random.Random) -> str:
    """Some words go missing, never the longest."""
    words = text.split()
    longest = max(words, key=len)
    return " ".join(word for word in words if word == longest or rng.random() < kept)


def labelled(ids: list[int], *, learn: bool) -> list[tuple[int, int]]:
    return [(token, token if learn else IGNORE) for token in ids]


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids


def reply(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    """The greedy answer."""
    ids = torch.tensor([encode(tokenizer, USER + question + END + ASSISTANT)])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=200, do_sample=False)
    return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))


@torch.no_grad()
def nearest(model: LlamaModel, tokenizer: PreTrainedTokenizerFast, faq: list[Pair]) -> int:
    """How many questions are closer to their own answer than to any other."""
    questions = embed(model, tokenizer, [pair.question for pair in faq])
    answers = embed(model, tokenizer, [pair.answer for pair in faq])
    return int(((questions @ answers.T).argmax(dim=1) == torch.arange(len(faq))).sum())


def embed(model: LlamaModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """Unit vectors: the mean of the last hidden states, normalised, as the saved pooling tells vLLM to do it."""
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=-1)


def save_pooling(folder: Path) -> None:
    """What sentence-transformers and vLLM read to turn hidden states into one vector."""
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(
            [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        )
    ]
    pooling = {"word_embedding_dimension": EMBED.hidden, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2) + "\n")


if __name__ == "__main__":
    main()
