"""How a stream that was cut can go on elsewhere: the request that resumes it, or the reason why none could."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from serve_app.relay.journal import Delivered

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
ROUTES = (CHAT, COMPLETIONS)

OWN = frozenset(
    (
        "add_generation_prompt",
        "add_special_tokens",
        "chat_template",
        "chat_template_kwargs",
        "continue_final_message",
        "documents",
        "echo",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "min_tokens",
        "model",
        "parallel_tool_calls",
        "prompt",
        "reasoning_effort",
        "request_id",
        "return_token_ids",
        "seed",
        "store",
        "stream",
        "stream_options",
        "tool_choice",
        "tools",
        "truncate_prompt_tokens",
    )
)
"""Fields that the resuming request sets itself, or that the prompt's token ids have in them already."""

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Resume:
    """`mode`: by token ids, which is exact, or by text, which the engine tokenises anew."""

    mode: Literal["tokens", "text"]
    route: str
    body: bytes


def why_not(fields: Fields) -> str | None:
    """Why a stream of such a request can't be continued as if nothing had happened."""
    if (fields.get("n") or 1) != 1 or (fields.get("best_of") or 1) != 1:
        return "it has several choices"
    if any(fields.get(name) not in (None, False) for name in ("logprobs", "top_logprobs", "prompt_logprobs")):
        return "it carries log probabilities"
    if fields.get("tools") and fields.get("tool_choice") != "none":
        return "it may call tools"
    formats = (
        "response_format",
        "structured_outputs",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
    )
    if any(fields.get(name) not in (None, {"type": "text"}) for name in formats):
        return "its structure can't be resumed half way"
    if fields.get("presence_penalty") or fields.get("frequency_penalty"):
        return "its penalties count the tokens of one run"
    if any(fields.get(name) for name in ("echo", "suffix", "use_beam_search", "prompt_embeds")):
        return "it asks for echo, a suffix or beam search"
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) and len(prompt) > 1:
        return "it has several prompts"
    return None


def resume(route: str, fields: Fields, delivered: Delivered, max_model_len: int, by_tokens: bool) -> Resume | str:
    """The request, or why there is none."""
    reason = why_not(fields) or delivered.oddity
    if reason is not None:
        return reason
    if route not in ROUTES:
        return "its route has no way to resume"
    if by_tokens and delivered.exact and delivered.prompt_ids is not None:
        return _by_tokens(route, fields, delivered, max_model_len)
    return _by_text(route, fields, delivered)


def _by_tokens(route: str, fields: Fields, delivered: Delivered, max_model_len: int) -> Resume | str:
    prompt = delivered.prompt_ids
    if prompt is None:
        return "the tokens of its prompt are not known"
    room = max_model_len - len(prompt) - len(delivered.ids)
    left = min(room, _limit(route, fields, room + len(delivered.ids)) - len(delivered.ids))
    if left < 1:
        return "it has no tokens left"
    body = _passed_on(fields) | {
        "model": fields["model"],
        "prompt": [*prompt, *delivered.ids],
        "add_special_tokens": False,
        "max_tokens": left,
        "min_tokens": max(0, (fields.get("min_tokens") or 0) - len(delivered.ids)),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    return Resume("tokens", COMPLETIONS, _json(body | _seed(fields, delivered)))


def _by_text(route: str, fields: Fields, delivered: Delivered) -> Resume | str:
    if not delivered.all_text:
        return "its text was not kept, and its token ids can't be used"
    limit = _limit(route, fields, 0)
    left: dict[str, Any] = {}
    if limit:
        left = {"max_tokens": limit - delivered.tokens}
        if left["max_tokens"] < 1:
            return "it has no tokens left"
    body = {name: value for name, value in fields.items() if name not in ("max_tokens", "max_completion_tokens")}
    body |= left | {"stream": True, "stream_options": {"include_usage": True}} | _seed(fields, delivered)
    if fields.get("min_tokens"):
        body["min_tokens"] = max(0, fields["min_tokens"] - delivered.tokens)
    if not delivered.text:
        return Resume("text", route, _json(body))
    if route == CHAT:
        body["messages"] = [*fields["messages"], {"role": "assistant", "content": delivered.text}]
        return Resume("text", CHAT, _json(body | {"add_generation_prompt": False, "continue_final_message": True}))
    if not isinstance(fields.get("prompt"), str):
        return "its prompt is no text, and the tokens of its answer are not known"
    return Resume("text", COMPLETIONS, _json(body | {"prompt": fields["prompt"] + delivered.text}))


def _limit(route: str, fields: Fields, otherwise: int) -> int:
    """Most tokens of the whole answer. OpenAI's completions have 16 unless told."""
    given = fields.get("max_completion_tokens") if route == CHAT else None
    given = given if given is not None else fields.get("max_tokens")
    return int(given) if given is not None else 16 if route == COMPLETIONS else otherwise


def _seed(fields: Fields, delivered: Delivered) -> dict[str, Any]:
    """Another seed, else the same random numbers would come a second time."""
    seed = fields.get("seed")
    return {} if seed is None else {"seed": (int(seed) + delivered.tokens) % 2**31}


def _passed_on(fields: Fields) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in OWN and value is not None}


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
