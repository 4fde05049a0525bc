"""`/v1/completions`, in the very shapes of vLLM 0.29."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.fakes.engine.answers import (
    CREATED,
    DONE,
    FAILURE,
    Event,
    Streamed,
    Whole,
    data,
    dump,
    full_usage,
    steps,
    tell,
    usage,
)
from tests.fakes.engine.asked import Asked
from tests.fakes.engine.generation import alternatives, logprob
from tests.fakes.engine.tokens import decode


def answer_completion(asked: Asked, fingerprint: str) -> Whole | Streamed:
    return Streamed(_events(asked, fingerprint), FAILURE) if asked.stream else _whole(asked, fingerprint)


def _events(asked: Asked, fingerprint: str) -> Iterator[Event]:
    said = [0] * asked.n * len(asked.prompts)
    shown = [0] * len(said)
    previous = len(said)
    for index, step in steps(asked):
        prompt = asked.prompts[index // asked.n]
        choice = {
            "index": index,
            "text": step.text,
            "logprobs": _logprobs(asked, step.tokens, shown[index]),
            "finish_reason": step.finish_reason,
            "stop_reason": step.stop_reason,
            "prompt_token_ids": prompt if asked.return_token_ids and not said[index] else None,
            "token_ids": step.tokens if asked.return_token_ids else None,
        }
        said[index] += len(step.tokens)
        shown[index] += len(step.text)
        chunk = _chunk(asked, [choice])
        if asked.continuous_usage:
            chunk["usage"] = usage(len(prompt), said[index])
        if step.finish_reason is not None and not asked.include_usage:
            chunk["system_fingerprint"] = fingerprint
        yield data(chunk, len(step.tokens), step=index <= previous)
        previous = index
    if asked.include_usage:
        total = usage(sum(map(len, asked.prompts)), sum(said))
        yield data({**_chunk(asked, []), "usage": total, "system_fingerprint": fingerprint})
    yield DONE


def _chunk(asked: Asked, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": asked.answer_id,
        "object": "text_completion",
        "created": CREATED,
        "model": asked.model,
        "choices": choices,
    }


def _logprobs(asked: Asked, tokens: Sequence[int], offset: int) -> dict[str, Any] | None:
    if asked.logprobs is None:
        return None
    texts = [decode([token]) for token in tokens]
    return {
        "text_offset": [offset + sum(map(len, texts[:at])) for at in range(len(texts))],
        "token_logprobs": [logprob(token) for token in tokens],
        "tokens": texts,
        "top_logprobs": [
            {decode([other]): logprob(other) for other in alternatives(token, asked.logprobs + 1)} for token in tokens
        ],
    }


def _whole(asked: Asked, fingerprint: str) -> Whole:
    told = tell(asked)
    output = sum(len(choice.tokens) for choice in told)
    body = {
        "id": asked.answer_id,
        "object": "text_completion",
        "created": CREATED,
        "model": asked.model,
        "choices": [
            {
                "index": index,
                "text": choice.text,
                "logprobs": _logprobs(asked, choice.tokens, 0),
                "finish_reason": choice.finish_reason,
                "stop_reason": choice.stop_reason,
                "token_ids": choice.tokens if asked.return_token_ids else None,
                "prompt_logprobs": None,
                "prompt_token_ids": asked.prompts[index // asked.n] if asked.return_token_ids else None,
                "routed_experts": None,
            }
            for index, choice in enumerate(told)
        ],
        "service_tier": None,
        "system_fingerprint": fingerprint,
        "usage": full_usage(sum(map(len, asked.prompts)), output),
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }
    return Whole(dump(body), tokens=output, steps=max(len(choice.tokens) for choice in told))
