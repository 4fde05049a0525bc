"""`/v1/messages`, Anthropic's protocol as vLLM speaks it: a chat in other words."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.fakes.engine.answers import Event, Streamed, Whole, dump, named, steps, tell
from tests.fakes.engine.asked import Asked, Circumstances, Refused, ask_chat

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
FAILURE = (named({"type": "error", "error": {"type": "internal_error", "message": "Internal server error"}}),)


def ask_messages(fields: Mapping[str, Any], circumstances: Circumstances) -> Asked:
    """Raises Refused."""
    system = [{"role": "system", "content": fields["system"]}] if fields.get("system") else []
    renamed = {
        **{name: fields[name] for name in ("model", "max_tokens", "stream", "temperature") if name in fields},
        "messages": [*system, *fields.get("messages", ())],
        "stop": fields.get("stop_sequences") or (),
        "tools": [_function(tool) for tool in fields.get("tools") or ()],
        "tool_choice": _tool_choice(fields.get("tool_choice") or {}),
    }
    return ask_chat(renamed, circumstances)


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}}


def _tool_choice(choice: Mapping[str, Any]) -> str | dict[str, Any] | None:
    match choice.get("type"):
        case "any":
            return "required"
        case "tool":
            return {"type": "function", "function": {"name": choice["name"]}}
        case _:
            return None


def count_tokens(asked: Asked) -> Whole:
    count = len(asked.prompts[0])
    return Whole(dump({"input_tokens": count, "context_management": {"original_input_tokens": count}}))


def refuse_messages(refused: Refused) -> Whole:
    return Whole(dump({"type": "error", "error": {"type": refused.kind, "message": str(refused)}}), refused.status)


def answer_messages(asked: Asked) -> Whole | Streamed:
    return Streamed(_events(asked), FAILURE) if asked.stream else _whole(asked)


def _events(asked: Asked) -> Iterator[Event]:
    prompt, output = len(asked.prompts[0]), 0
    message = {**_message(asked), "content": [], "stop_reason": None, "stop_sequence": None}
    message["usage"] = {"input_tokens": prompt, "output_tokens": 0}
    yield named({"type": "message_start", "message": message}, step=True)
    block = {"type": "text", "text": ""} if asked.tool is None else _tool_use(asked, {})
    begun = False
    for _, step in steps(asked):
        if step.text and not begun:
            yield named({"type": "content_block_start", "content_block": block, "index": 0})
            begun = True
        if step.text:
            kind, name = ("text_delta", "text") if asked.tool is None else ("input_json_delta", "partial_json")
            delta = {"type": kind, name: step.text}
            event = {"type": "content_block_delta", "delta": delta, "index": 0}
            yield named(event, len(step.tokens), step=output > 0)
        output += len(step.tokens)
        if step.finish_reason is not None:
            stopped = _stopped(asked, step.finish_reason, step.stop_reason)
    if begun:
        yield named({"type": "content_block_stop", "index": 0})
    counted = {"input_tokens": prompt, "output_tokens": output}
    yield named({"type": "message_delta", "delta": stopped, "usage": counted})
    yield named({"type": "message_stop"}, last=True)


def _message(asked: Asked) -> dict[str, Any]:
    return {"id": asked.answer_id, "type": "message", "role": "assistant", "content": [], "model": asked.model}


def _tool_use(asked: Asked, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"chatcmpl-tool-{asked.answer_id}", "name": asked.tool, "input": arguments}


def _stopped(asked: Asked, finish_reason: str, stop_reason: int | str | None) -> dict[str, Any]:
    if isinstance(stop_reason, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": stop_reason}
    reason = "tool_calls" if asked.tool is not None and finish_reason == "stop" else finish_reason
    return {"stop_reason": STOP_REASONS.get(reason)}


def _whole(asked: Asked) -> Whole:
    (told,) = tell(asked)
    block = {"type": "text", "text": told.text}
    if asked.tool is not None:
        block = _tool_use(asked, json.loads(told.text))
    usage = {"input_tokens": len(asked.prompts[0]), "output_tokens": len(told.tokens)}
    stopped = _stopped(asked, told.finish_reason, told.stop_reason)
    body = {**_message(asked), "content": [block], **stopped, "usage": usage}
    return Whole(dump(body), tokens=len(told.tokens), steps=len(told.tokens))
