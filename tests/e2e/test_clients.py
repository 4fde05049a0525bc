"""Clients of others, unmodified: what they send and what they expect, through the ingress to real vLLM."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import anthropic
import openai
import pytest
from anthropic.types import TextBlock
from langchain_openai import ChatOpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import SecretStr

from tests.e2e.conftest import Fleet

ROOT = Path(__file__).parents[2]
QUESTION = "What is rayfleet?"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]

BENCH = """
import sys
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args(sys.argv[1:]))
"""
"""`vllm bench serve`, without the command, which the CPU wheel of vLLM doesn't have."""


@pytest.fixture(scope="module")
def claude(fleet: Fleet) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=fleet.local.endpoint, api_key=fleet.local.api_key, max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def langchain(fleet: Fleet) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"{fleet.local.endpoint}/v1",
        api_key=SecretStr(fleet.local.api_key),
        model="demo-chat",
        temperature=0,
        max_retries=0,
        timeout=120,
    )


# OpenAI's


def test_log_probabilities(fleet: Fleet) -> None:
    answer = fleet.openai.chat.completions.create(
        model="demo-chat", messages=MESSAGES, temperature=0, max_tokens=5, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert [len(token.top_logprobs) for token in logprobs.content or ()] == [2] * 5


def test_several_choices_streamed(fleet: Fleet) -> None:
    stream = fleet.openai.chat.completions.create(
        model="demo-chat", messages=MESSAGES, n=3, max_tokens=5, stream=True, extra_body={"ignore_eos": True}
    )
    assert {choice.index for chunk in stream for choice in chunk.choices} == {0, 1, 2}


@pytest.mark.parametrize(
    ("rule", "expected"), [({"choice": ["yes", "no"]}, "yes|no"), ({"regex": "[a-z]{3}7"}, "[a-z]{3}7")]
)
def test_structured_output(fleet: Fleet, rule: dict[str, object], expected: str) -> None:
    answer = fleet.openai.chat.completions.create(
        model="demo-chat", messages=MESSAGES, max_tokens=20, temperature=0, extra_body={"structured_outputs": rule}
    )
    assert re.fullmatch(expected, answer.choices[0].message.content or "")


def test_tools_reach_the_engine_which_has_no_parser_for_them(fleet: Fleet) -> None:
    with pytest.raises(openai.BadRequestError, match="--tool-call-parser"):
        fleet.openai.chat.completions.create(
            model="demo-chat",
            messages=MESSAGES,
            tools=[{"type": "function", "function": {"name": "switch", "parameters": {"type": "object"}}}],
            tool_choice={"type": "function", "function": {"name": "switch"}},
        )


def test_responses(fleet: Fleet) -> None:
    answer = fleet.openai.responses.create(model="demo-chat", input=QUESTION, max_output_tokens=40, temperature=0)
    assert "rayfleet" in answer.output_text.lower()
    stream = fleet.openai.responses.create(
        model="demo-chat", input=QUESTION, max_output_tokens=40, temperature=0, stream=True
    )
    *_, last = stream
    assert last.type == "response.completed"


def test_tokens_there_and_back(fleet: Fleet) -> None:
    tokens = fleet.http.post("/tokenize", json={"model": "demo-chat", "prompt": QUESTION}).json()["tokens"]
    back = fleet.http.post("/detokenize", json={"model": "demo-chat", "tokens": tokens}).json()
    assert QUESTION in back["prompt"]


# Anthropic's


def test_anthropics_client(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(
        model="demo-chat",
        max_tokens=60,
        messages=[{"role": "user", "content": QUESTION}],
        extra_body={"temperature": 0},
    )
    (block,) = answer.content
    assert isinstance(block, TextBlock)
    assert "rayfleet" in block.text.lower()
    assert answer.usage.output_tokens > 0


def test_anthropics_client_streams(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(
        model="demo-chat",
        max_tokens=60,
        messages=[{"role": "user", "content": QUESTION}],
        extra_body={"temperature": 0},
    ) as stream:
        text = "".join(stream.text_stream)
        assert stream.get_final_message().stop_reason in ("end_turn", "max_tokens")
    assert "rayfleet" in text.lower()


def test_anthropics_client_is_told_of_errors(fleet: Fleet, claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="no-such-model"):
        claude.messages.create(model="no-such-model", max_tokens=5, messages=[{"role": "user", "content": "x"}])
    stranger = anthropic.Anthropic(base_url=fleet.local.endpoint, api_key="rf-wrong", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model="demo-chat", max_tokens=5, messages=[{"role": "user", "content": "x"}])


# LangChain's


def test_langchain(langchain: ChatOpenAI) -> None:
    answer = langchain.invoke(QUESTION)
    assert "rayfleet" in str(answer.content).lower()
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0
    assert "".join(str(chunk.content) for chunk in langchain.stream(QUESTION)) == answer.content
    assert len(langchain.batch([QUESTION] * 4)) == 4


def test_langchain_is_told_of_errors(langchain: ChatOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        langchain.model_copy(update={"model_name": "no-such-model"}).invoke(QUESTION)


# vLLM's own benchmark


def test_vllms_benchmark_runs_against_the_fleet(fleet: Fleet, tmp_path: Path) -> None:
    arguments = ["--backend=openai-chat", f"--base-url={fleet.local.endpoint}", "--endpoint=/v1/chat/completions"]
    arguments += ["--model=demo-chat", f"--tokenizer={ROOT / 'weights/demo/chat'}", "--dataset-name=random"]
    arguments += ["--num-prompts=24", "--random-input-len=32", "--random-output-len=16", "--max-concurrency=8"]
    arguments += ["--save-result", f"--result-dir={tmp_path}", "--disable-tqdm"]
    environ = {**os.environ, "OPENAI_API_KEY": fleet.local.api_key, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BENCH, *arguments], env=environ, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = tmp_path.glob("*.json")
    measured = json.loads(result.read_text())
    assert measured["completed"] == 24
    assert measured["total_output_tokens"] == 24 * 16
