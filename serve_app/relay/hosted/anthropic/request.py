"""A chat completion request as a messages request. What would be lost on the way is refused, never dropped."""

from collections.abc import Iterator
from typing import Any

import msgspec

from serve_app.relay.hosted.untranslatable import UNREADABLE, Untranslatable

MAX_TOKENS = 4096
"""Of the answer, where the client says nothing: Anthropic wants a number."""

WITHOUT_EFFECT = {
    "metadata",
    "model",
    "prompt_cache_key",
    "reasoning_effort",
    "safety_identifier",
    "seed",
    "service_tier",
    "store",
    "stream_options",
    "user",
    "verbosity",
}
"""Read elsewhere, or hints that OpenAI, too, may pass over."""

ASKS_NOTHING = {
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "top_logprobs": (0,),
}
"""Values at which a field without a counterpart can be left out."""


class _ImageUrl(msgspec.Struct):
    url: str


class _Part(msgspec.Struct):
    type: str
    text: str = ""
    refusal: str = ""
    image_url: _ImageUrl | None = None


class _Called(msgspec.Struct):
    name: str
    arguments: str = ""


class _ToolCall(msgspec.Struct):
    id: str
    function: _Called


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str = ""
    function_call: msgspec.Raw | None = None
    audio: msgspec.Raw | None = None


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct):
    type: str
    function: _Function | None = None


class _Request(msgspec.Struct):
    messages: list[_Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stream: bool | None = None
    stop: str | list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None


KNOWN = WITHOUT_EFFECT.union(_Request.__struct_fields__)


def to_messages(body: bytes, name: str) -> bytes:
    """`name` is the target's own name of the model. Raises Untranslatable."""
    try:
        return msgspec.json.encode(_messages(body, name))
    except UNREADABLE as error:
        raise Untranslatable(f"the request cannot be read: {error}") from error


def _messages(body: bytes, name: str) -> dict[str, Any]:
    fields = msgspec.json.decode(body, type=dict[str, Any])
    request = msgspec.convert(fields, _Request)
    _refuse_unknown(fields)
    messages = {
        "model": name,
        "max_tokens": request.max_completion_tokens or request.max_tokens or MAX_TOKENS,
        "system": _system(request),
        "messages": _turns(request),
        "temperature": _temperature(request),
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop_sequences": [request.stop] if isinstance(request.stop, str) else request.stop,
        "stream": request.stream,
        "tools": [_tool(tool, f"tools[{index}]") for index, tool in enumerate(request.tools or ())],
        "tool_choice": _tool_choice(request),
    }
    return {field: value for field, value in messages.items() if value not in (None, [])}


def _refuse_unknown(fields: dict[str, Any]) -> None:
    for field, value in fields.items():
        if field in KNOWN or value is None or value in ASKS_NOTHING.get(field, ()):
            continue
        raise Untranslatable(f"{field} has no counterpart in Anthropic's messages API")


def _temperature(request: _Request) -> float | None:
    if request.temperature is not None and request.temperature > 1:
        raise Untranslatable(f"temperature is {request.temperature:g}; Anthropic's messages API takes at most 1")
    return request.temperature


def _system(request: _Request) -> list[dict[str, Any]]:
    return [
        block
        for index, message in enumerate(request.messages)
        if message.role in ("system", "developer")
        for block in _text_blocks(message, f"messages[{index}]")
    ]


def _turns(request: _Request) -> list[dict[str, Any]]:
    """Neighbours of one role become one turn: the results of several tool calls must come together."""
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(request.messages):
        role = _role(message, f"messages[{index}]")
        blocks = list(_blocks(message, f"messages[{index}]")) if role else []
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if turns and turns[-1]["role"] == "assistant":
        raise Untranslatable(
            "messages ends with one of the assistant's, which Anthropic's messages API would go on with"
        )
    return turns


def _role(message: _Message, where: str) -> str | None:
    match message.role:
        case "system" | "developer":
            return None
        case "user" | "tool":
            return "user"
        case "assistant":
            return "assistant"
    raise Untranslatable(f"{where}.role {message.role!r} has no counterpart in Anthropic's messages API")


def _blocks(message: _Message, where: str) -> Iterator[dict[str, Any]]:
    for field in ("function_call", "audio"):
        if getattr(message, field) is not None:
            raise Untranslatable(f"{where}.{field} has no counterpart in Anthropic's messages API")
    if message.role == "tool":
        yield {
            "type": "tool_result",
            "tool_use_id": message.tool_call_id,
            "content": list(_content(message, where)),
        }
        return
    yield from _content(message, where) if message.role == "user" else _text_blocks(message, where)
    for index, call in enumerate(message.tool_calls or ()):
        arguments = _arguments(call, f"{where}.tool_calls[{index}]")
        yield {"type": "tool_use", "id": call.id, "name": call.function.name, "input": arguments}


def _text_blocks(message: _Message, where: str) -> Iterator[dict[str, Any]]:
    for block in _content(message, where):
        if block["type"] != "text":
            raise Untranslatable(f"{where}.content of the {message.role} can only be text")
        yield block


def _content(message: _Message, where: str) -> Iterator[dict[str, Any]]:
    """Without empty texts, which Anthropic refuses."""
    parts = [_Part("text", message.content)] if isinstance(message.content, str) else message.content or []
    for index, part in enumerate(parts):
        if part.type == "image_url" and part.image_url is not None:
            yield {"type": "image", "source": _image(part.image_url.url, f"{where}.content[{index}]")}
        elif part.type not in ("text", "refusal"):
            raise Untranslatable(f"{where}.content[{index}] of type {part.type!r} has no counterpart")
        elif part.text or part.refusal:
            yield {"type": "text", "text": part.text or part.refusal}


def _image(url: str, where: str) -> dict[str, str]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, comma, data = url.removeprefix("data:").partition(",")
    media_type, semicolon, encoding = head.partition(";")
    if not comma or not semicolon or encoding != "base64":
        raise Untranslatable(f"{where}.image_url.url is a data URL other than data:TYPE;base64,…")
    return {"type": "base64", "media_type": media_type, "data": data}


def _arguments(call: _ToolCall, where: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(call.function.arguments or "{}", type=dict[str, Any])
    except UNREADABLE as error:
        raise Untranslatable(f"{where}.function.arguments is no JSON object") from error


def _tool(tool: _Tool, where: str) -> dict[str, Any]:
    if tool.type != "function" or tool.function is None:
        raise Untranslatable(f"{where} of type {tool.type!r} has no counterpart in Anthropic's messages API")
    told = {
        "name": tool.function.name,
        "description": tool.function.description,
        "input_schema": tool.function.parameters or {"type": "object", "properties": {}},
        "strict": tool.function.strict,
    }
    return {field: value for field, value in told.items() if value is not None}


def _tool_choice(request: _Request) -> dict[str, Any] | None:
    match request.tool_choice:
        case None if request.parallel_tool_calls is False and request.tools:
            choice: dict[str, Any] = {"type": "auto"}
        case None:
            return None
        case "none":
            return {"type": "none"}
        case "auto":
            choice = {"type": "auto"}
        case "required":
            choice = {"type": "any"}
        case {"type": "function", "function": {"name": str(name)}}:
            choice = {"type": "tool", "name": name}
        case _:
            raise Untranslatable("tool_choice has no counterpart in Anthropic's messages API")
    return choice | ({"disable_parallel_tool_use": True} if request.parallel_tool_calls is False else {})
