"""The bytes that vLLM 0.29 answers with, built before they are needed."""

import itertools
import json
import re
from dataclasses import dataclass
from typing import Any, Self

MODEL = "telescope-8b"
CHAT = b"/chat/completions"
PROMPT_TOKENS = 120
CREATED = 1_763_733_600
TEXT = "A replica is one engine of a placement; a request goes where it costs least."
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
WORDS = (" the", " lens", " was", " clean")
"""Not always the same: LiteLLM takes that for a model that has gone mad."""
LAST_WORD = " again"
PACE = re.compile(rb"pace=(\d+)")

Fields = dict[str, Any]
numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for. Its pace is written in the prompt, which every router passes on as it is."""

    chat: bool
    stream: bool
    model: str
    tokens: int
    """At least 2. One event each."""
    pace: int
    """Tokens per second, 0 for as fast as the socket takes them."""
    usage: bool
    token_ids: bool

    @classmethod
    def read(cls, path: bytes, body: bytes) -> Self:
        fields = json.loads(body)
        pace = PACE.search(body)
        return cls(
            chat=path.endswith(CHAT),
            stream=bool(fields.get("stream")),
            model=fields["model"],
            tokens=fields.get("max_tokens") or fields.get("max_completion_tokens") or 16,
            pace=int(pace[1]) if pace else 0,
            usage=bool((fields.get("stream_options") or {}).get("include_usage")),
            token_ids=bool(fields.get("return_token_ids")),
        )


@dataclass(frozen=True, slots=True)
class StreamBytes:
    """One HTTP chunk per event: `opening`, then `count` of `events` in rotation, then `closing`."""

    opening: bytes
    events: tuple[bytes, ...]
    count: int
    closing: bytes


def whole_answer(ask: Ask) -> bytes:
    end = {"logprobs": None, "finish_reason": "stop", "stop_reason": None}
    token_ids, prompt_token_ids = _token_ids(ask, ask.tokens), _token_ids(ask, PROMPT_TOKENS)
    if ask.chat:
        unused = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
        message = {"role": "assistant", "content": TEXT, **unused}
        choice = {"index": 0, "message": message, **end, "token_ids": token_ids, "routed_experts": None}
        beside = {"prompt_logprobs": None, "prompt_token_ids": prompt_token_ids, "prompt_text": None}
    else:
        choice = {"index": 0, "text": TEXT, **end, "token_ids": token_ids, "prompt_token_ids": prompt_token_ids}
        beside = {}
    usage = {**_usage(ask), "prompt_tokens_details": None, "completion_tokens_details": None}
    fields = {"choices": [choice], "service_tier": None, "system_fingerprint": None, "usage": usage, **beside}
    unset = dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics"))
    return json_response("200 OK", {**_head(ask), **fields, **unset})


def stream_answer(ask: Ask) -> StreamBytes:
    first, tokens, last = _chat_events(ask) if ask.chat else _text_events(ask)
    head = _head(ask, ".chunk")
    end = [_event({**head, **last})]
    if ask.usage:
        end.append(_event({**head, "choices": [], "usage": _usage(ask)}))
    return StreamBytes(
        opening=SSE_HEAD + _http_chunk(_event({**head, **first})),
        events=tuple(_http_chunk(_event({**head, **token})) for token in tokens),
        # A chat opens with an event of its own for the role, a completion with its first token.
        count=ask.tokens - (1 if ask.chat else 2),
        closing=b"".join(map(_http_chunk, [*end, b"data: [DONE]\n\n"])) + b"0\r\n\r\n",
    )


def json_response(status: str, fields: Fields) -> bytes:
    body = _compact(fields)
    head = f"HTTP/1.1 {status}\r\nserver: uvicorn\r\ncontent-length: {len(body)}\r\ncontent-type: application/json"
    return b"%b\r\n\r\n%b" % (head.encode(), body)


def _chat_events(ask: Ask) -> tuple[Fields, list[Fields], Fields]:
    """What the first event says, those of the middle, and the one with the last token."""

    def choice(delta: Fields, **more: object) -> Fields:
        return {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None} | more]}

    token_ids = _token_ids(ask, 1)
    role = {"role": "assistant", "content": ""}
    return (
        choice(role) | {"prompt_token_ids": _token_ids(ask, PROMPT_TOKENS), "prompt_text": None},
        [choice({"content": word}, token_ids=token_ids) for word in WORDS],
        choice({"content": LAST_WORD}, finish_reason="length", stop_reason=None, token_ids=token_ids),
    )


def _text_events(ask: Ask) -> tuple[Fields, list[Fields], Fields]:
    token_ids = {"prompt_token_ids": None, "token_ids": _token_ids(ask, 1)}

    def choice(text: str, **more: object) -> Fields:
        open_end = {"logprobs": None, "finish_reason": None, "stop_reason": None}
        return {"choices": [{"index": 0, "text": text, **open_end, **token_ids} | more]}

    return (
        choice(LAST_WORD, prompt_token_ids=_token_ids(ask, PROMPT_TOKENS)),
        [choice(word) for word in WORDS],
        choice(LAST_WORD, finish_reason="length"),
    )


def _head(ask: Ask, part: str = "") -> Fields:
    """`part` marks the objects of a chat's stream."""
    kind, name = ("chatcmpl", f"chat.completion{part}") if ask.chat else ("cmpl", "text_completion")
    return {"id": f"{kind}-{next(numbers):032x}", "object": name, "created": CREATED, "model": ask.model}


def _usage(ask: Ask) -> Fields:
    total = PROMPT_TOKENS + ask.tokens
    return {"prompt_tokens": PROMPT_TOKENS, "total_tokens": total, "completion_tokens": ask.tokens}


def _token_ids(ask: Ask, count: int) -> list[int] | None:
    return [123] * count if ask.token_ids else None


def _event(fields: Fields) -> bytes:
    return b"data: %b\n\n" % _compact(fields)


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _compact(value: Fields) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
