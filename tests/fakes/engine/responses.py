"""`/v1/responses`, as far as a text answer goes."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.fakes.engine.answers import BROKEN, CREATED, Event, Streamed, Whole, dump, named, steps, tell
from tests.fakes.engine.asked import Asked, Circumstances, ask_chat

FAILURE = (named({"type": "error", **BROKEN}),)


def ask_response(fields: Mapping[str, Any], circumstances: Circumstances) -> Asked:
    """Raises Refused."""
    asked = fields.get("input") or ()
    system = [{"role": "system", "content": fields["instructions"]}] if fields.get("instructions") else []
    renamed = {
        **{name: fields[name] for name in ("model", "stream", "temperature", "seed") if name in fields},
        "messages": [*system, *([{"role": "user", "content": asked}] if isinstance(asked, str) else asked)],
        "max_tokens": fields.get("max_output_tokens"),
    }
    return ask_chat(renamed, circumstances)


def answer_response(asked: Asked) -> Whole | Streamed:
    return Streamed(_events(asked), FAILURE) if asked.stream else _whole(asked)


def _events(asked: Asked) -> Iterator[Event]:
    for number, (value, tokens, step) in enumerate(_numbered(asked)):
        yield named({**value, "sequence_number": number}, tokens, step=step, last=value["type"] == "response.completed")


def _numbered(asked: Asked) -> Iterator[tuple[dict[str, Any], int, bool]]:
    """Each with its tokens, and whether the engine takes a step for it."""
    begun = _response(asked, "in_progress", [], None)
    yield {"type": "response.created", "response": begun}, 0, False
    yield {"type": "response.in_progress", "response": begun}, 0, False
    at = {"item_id": _item_id(asked), "output_index": 0, "content_index": 0}
    yield {"type": "response.output_item.added", "output_index": 0, "item": _item(asked, None)}, 0, True
    yield {"type": "response.content_part.added", **at, "part": {**_part(""), "logprobs": []}}, 0, False
    text, output = "", 0
    for _, step in steps(asked):
        delta = {"type": "response.output_text.delta", **at, "delta": step.text, "logprobs": []}
        yield delta, len(step.tokens), output > 0
        text, output = text + step.text, output + len(step.tokens)
    yield {"type": "response.output_text.done", **at, "text": text, "logprobs": []}, 0, False
    yield {"type": "response.content_part.done", **at, "part": _part(text)}, 0, False
    item = _item(asked, text)
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}, 0, False
    yield {"type": "response.completed", "response": _response(asked, "completed", [item], output)}, 0, False


def _whole(asked: Asked) -> Whole:
    (told,) = tell(asked)
    body = _response(asked, "completed", [_item(asked, told.text)], len(told.tokens))
    return Whole(dump(body), tokens=len(told.tokens), steps=len(told.tokens))


def _item_id(asked: Asked) -> str:
    return f"msg_{asked.answer_id}"


def _part(text: str) -> dict[str, Any]:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}


def _item(asked: Asked, text: str | None) -> dict[str, Any]:
    return {
        "id": _item_id(asked),
        "content": [] if text is None else [_part(text)],
        "role": "assistant",
        "status": "in_progress" if text is None else "completed",
        "type": "message",
        "phase": None,
    }


def _response(asked: Asked, status: str, items: list[dict[str, Any]], tokens: int | None) -> dict[str, Any]:
    return {
        "id": asked.answer_id.replace("chatcmpl-", "resp_"),
        "created_at": CREATED,
        "incomplete_details": None,
        "instructions": None,
        "metadata": None,
        "model": asked.model,
        "object": "response",
        "output": items,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "none",
        "tools": [],
        "top_p": 1.0,
        "background": False,
        "max_output_tokens": asked.sampling.max_tokens,
        "service_tier": "auto",
        "status": status,
        "truncation": "disabled",
        "usage": None if tokens is None else _usage(len(asked.prompts[0]), tokens),
        "user": None,
    }


def _usage(prompt: int, output: int) -> dict[str, Any]:
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "input_tokens_per_turn": [], "cached_tokens_per_turn": []},
        "output_tokens": output,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": prompt + output,
    }
