"""What a hosted target needs to be told, and what it says, in the words of the client's own API."""

import json
from collections.abc import Callable

from clusters.spec import HostedSpec, Protocol
from serve_app.relay.call import Call
from serve_app.relay.hosted import anthropic, openai
from serve_app.relay.hosted.anthropic import Untranslatable

MESSAGES = "/v1/messages"
CHAT = "/v1/chat/completions"
ROUTES = {
    Protocol.OPENAI: (CHAT, "/v1/completions", "/v1/embeddings", "/v1/responses"),
    Protocol.ANTHROPIC: (CHAT, MESSAGES),
}
"""What each kind of target has, or has a counterpart of."""


def request(hosted: HostedSpec, call: Call) -> tuple[bytes, bytes]:
    """Path below the target's URL, and body. Raises Untranslatable."""
    if call.route not in ROUTES[hosted.protocol]:
        raise Untranslatable(f"{hosted.name} has no counterpart of {call.route}")
    name = next(model.name for model in hosted.models if model.model == call.facts.model)
    if translates(hosted, call):
        return MESSAGES.removeprefix("/v1").encode(), anthropic.to_messages(call.body, name)
    return call.route.removeprefix("/v1").encode(), openai.rename_model(call.body, name)


def answer(hosted: HostedSpec | None, call: Call, body: bytes) -> bytes:
    """A whole answer, as the client's API has it."""
    return anthropic.answer_to_openai(body) if translates(hosted, call) else body


def error(hosted: HostedSpec | None, call: Call, status: int, body: bytes) -> bytes:
    """A refusal."""
    return anthropic.error_to_openai(status, body) if translates(hosted, call) else body


def stream(hosted: HostedSpec | None, call: Call) -> Callable[[bytes], bytes] | None:
    """From the target's events to the client's, or None when they are the same."""
    if not translates(hosted, call):
        return None
    options = json.loads(call.body).get("stream_options") or {}
    return anthropic.StreamTranslator(call.facts.model, bool(options.get("include_usage"))).feed


def translates(hosted: HostedSpec | None, call: Call) -> bool:
    """Whether the two speak differently."""
    return hosted is not None and hosted.protocol is Protocol.ANTHROPIC and call.route == CHAT
