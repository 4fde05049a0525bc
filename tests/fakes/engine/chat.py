"""`/v1/chat/completions`, in the very shapes of vLLM 0.29."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.fakes.engine.answers import (
    CREATED,
    DONE,
    FAILURE,
    Event,
    Streamed,
    Told,
    Whole,
    data,
    dump,
    full_usage,
    steps,
    tell,
    usage,
)
from tests.fakes.engine.asked import Asked
from tests.fakes.engine.generation import Step, alternatives, logprob
from tests.fakes.engine.tokens import decode


def answer_chat(asked: Asked, fingerprint: str) -> Whole | Streamed:
    return Streamed(_events(asked, fingerprint), FAILURE) if asked.stream else _whole(asked, fingerprint)


def _events(asked: Asked, fingerprint: str) -> Iterator[Event]:
    prompt, said = len(asked.prompts[0]), [0] * asked.n
    for index in range(asked.n):
        chunk = _chunk(asked, [_choice(index, {"role": asked.role, "content": ""})])
        if asked.continuous_usage:
            chunk["usage"] = _continuous(prompt, 0)
        chunk["prompt_token_ids"] = asked.prompts[0] if asked.return_token_ids else None
        chunk["prompt_text"] = None
        yield data(chunk, step=index == 0)
    previous = 0
    for turn, (index, step) in enumerate(steps(asked)):
        choice = _choice(index, _delta(asked, step, first=not said[index]), _logprobs(asked, step.tokens))
        said[index] += len(step.tokens)
        if step.finish_reason is not None:
            choice["finish_reason"] = _reason(asked, step.finish_reason)
            choice["stop_reason"] = step.stop_reason
        choice["token_ids"] = step.tokens if asked.return_token_ids else None
        chunk = _chunk(asked, [choice])
        if asked.continuous_usage:
            chunk["usage"] = _continuous(prompt, said[index])
        if step.finish_reason is not None and not asked.include_usage:
            chunk["system_fingerprint"] = fingerprint
        # The first turn came with the roles.
        yield data(chunk, len(step.tokens), step=turn > 0 and index <= previous)
        previous = index
    if asked.include_usage:
        final = {**_chunk(asked, []), "usage": usage(prompt, sum(said)), "system_fingerprint": fingerprint}
        yield data(final)
    yield DONE


def _chunk(asked: Asked, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": asked.answer_id,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": asked.model,
        "choices": choices,
    }


def _choice(index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def _continuous(prompt: int, output: int) -> dict[str, Any]:
    return {**usage(prompt, output), "completion_tokens_details": None}


def _delta(asked: Asked, step: Step, *, first: bool) -> dict[str, Any]:
    if asked.tool is None:
        return {"content": step.text}
    if first:
        function = {"name": asked.tool, "arguments": step.text}
        call = {"id": f"chatcmpl-tool-{asked.answer_id}", "type": "function", "index": 0, "function": function}
        return {"tool_calls": [call]}
    return {"tool_calls": [{"index": 0, "function": {"arguments": step.text}}]} if step.text else {}


def _reason(asked: Asked, finish_reason: str) -> str:
    return "tool_calls" if asked.tool_required and finish_reason == "stop" else finish_reason


def _logprobs(asked: Asked, tokens: Sequence[int]) -> dict[str, Any] | None:
    if asked.logprobs is None:
        return None
    return {"content": [{**_logprob(token), "top_logprobs": _top(token, asked.logprobs)} for token in tokens]}


def _top(token: int, count: int) -> list[dict[str, Any]]:
    return [_logprob(other) for other in alternatives(token, count)]


def _logprob(token: int) -> dict[str, Any]:
    text = decode([token])
    return {"token": text, "logprob": logprob(token), "bytes": list(text.encode())}


def _whole(asked: Asked, fingerprint: str) -> Whole:
    told = tell(asked)
    output = sum(len(choice.tokens) for choice in told)
    body = {
        "id": asked.answer_id,
        "object": "chat.completion",
        "created": CREATED,
        "model": asked.model,
        "choices": [_whole_choice(asked, index, choice) for index, choice in enumerate(told)],
        "service_tier": None,
        "system_fingerprint": fingerprint,
        "usage": full_usage(len(asked.prompts[0]), output),
        "prompt_logprobs": None,
        "prompt_token_ids": asked.prompts[0] if asked.return_token_ids else None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }
    return Whole(dump(body), tokens=output, steps=max(len(choice.tokens) for choice in told))


def _whole_choice(asked: Asked, index: int, told: Told) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": asked.role,
        "content": told.text if asked.tool is None else "",
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if asked.tool is not None:
        function = {"name": asked.tool, "arguments": told.text}
        call = {"id": f"chatcmpl-tool-{asked.answer_id}", "type": "function", "function": function}
        message["tool_calls"] = [call]
    return {
        "index": index,
        "message": {**message, "reasoning": None},
        "logprobs": _logprobs(asked, told.tokens),
        "finish_reason": _reason(asked, told.finish_reason),
        "stop_reason": told.stop_reason,
        "token_ids": told.tokens if asked.return_token_ids else None,
        "routed_experts": None,
    }
