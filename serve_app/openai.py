"""The few fields of a request body that we read. All others pass untouched.

Bodies are JSON objects; audio comes as a form. Fields that only the engine reads are left undecoded. Of tensors nothing
is read at all: their paths name the model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from clusters.spec import FleetSpec, ModelSpec, Task
from serve_app.errors import BadRequest, ModelNotFound
from serve_app.form import form_fields
from serve_app.relay.resume import ROUTES as RESUMABLE
from serve_app.relay.resume import why_not


@dataclass(frozen=True, slots=True)
class Route:
    """`prompt` are the fields of which one must be there, with the JSON that it may begin with."""

    task: Task | None
    prompt: Mapping[str, bytes]
    form: bool = False


TEXT_OR_LIST = b'"['
ROUTES: Mapping[str, Route] = {
    "/v1/chat/completions": Route(Task.CHAT, {"messages": b"["}),
    "/v1/responses": Route(Task.CHAT, {"input": TEXT_OR_LIST}),
    "/v1/messages": Route(Task.CHAT, {"messages": b"["}),
    "/v1/messages/count_tokens": Route(Task.CHAT, {"messages": b"["}),
    "/v1/completions": Route(Task.COMPLETIONS, {"prompt": TEXT_OR_LIST}),
    "/v1/embeddings": Route(Task.EMBEDDINGS, {"input": TEXT_OR_LIST, "messages": b"["}),
    "/pooling": Route(Task.EMBEDDINGS, {}),
    "/score": Route(Task.SCORE, {}),
    "/v1/score": Route(Task.SCORE, {}),
    "/rerank": Route(Task.SCORE, {}),
    "/v1/rerank": Route(Task.SCORE, {}),
    "/v2/rerank": Route(Task.SCORE, {}),
    "/classify": Route(Task.CLASSIFY, {}),
    "/tokenize": Route(None, {}),
    "/detokenize": Route(None, {}),
    "/v1/audio/transcriptions": Route(Task.TRANSCRIPTION, {}, form=True),
    "/v1/audio/translations": Route(Task.TRANSCRIPTION, {}, form=True),
}
TENSORS = Route(Task.INFER, {})

TYPE_NAMES = {b"[": "an array", TEXT_OR_LIST: "a string or an array"}
ABSENT = msgspec.Raw(b"")


class Body(msgspec.Struct, gc=False):
    """What a JSON body may hold that matters here."""

    model: str
    stream: bool | None = None
    messages: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT
    max_tokens: Any = None
    max_completion_tokens: Any = None
    return_token_ids: Any = None
    stop: msgspec.Raw = ABSENT
    # Those from here on are rare; one that is there makes a stream's continuation a matter to be looked at.
    n: msgspec.Raw = ABSENT
    best_of: msgspec.Raw = ABSENT
    logprobs: msgspec.Raw = ABSENT
    top_logprobs: msgspec.Raw = ABSENT
    prompt_logprobs: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    response_format: msgspec.Raw = ABSENT
    structured_outputs: msgspec.Raw = ABSENT
    guided_json: msgspec.Raw = ABSENT
    guided_regex: msgspec.Raw = ABSENT
    guided_choice: msgspec.Raw = ABSENT
    guided_grammar: msgspec.Raw = ABSENT
    presence_penalty: msgspec.Raw = ABSENT
    frequency_penalty: msgspec.Raw = ABSENT
    echo: msgspec.Raw = ABSENT
    suffix: msgspec.Raw = ABSENT
    use_beam_search: msgspec.Raw = ABSENT
    prompt_embeds: msgspec.Raw = ABSENT


RARE = Body.__struct_fields__[Body.__struct_fields__.index("n") :]
DECODER = msgspec.json.Decoder(Body)


def read_body(route: Route, content_type: bytes, body: bytes) -> Body:
    """Raises BadRequest, naming the field."""
    if route.form:
        form = form_fields(content_type, body, ("model", "stream"))
        if not form.get("model"):
            raise BadRequest("'model' is required, as a field of the form.", param="model")
        return Body(model=form["model"], stream=form.get("stream", "").lower() == "true")
    try:
        fields = DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise _refused(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest("The request body is not valid JSON.") from error
    if not fields.model:
        raise BadRequest("'model' is required, and must be a string.", param="model")
    if route.prompt:
        _check_prompt(route, fields)
    return fields


def is_continuable(path: str, fields: Body, body: bytes) -> bool:
    """Whether a stream of this request could go on elsewhere without a seam."""
    if not fields.stream or path not in RESUMABLE:
        return False
    plain = fields.prompt is ABSENT or _begins(fields.prompt) == b'"'
    if plain and all(getattr(fields, name) is ABSENT for name in RARE):
        return True
    try:
        return why_not(json.loads(body)) is None
    except (ValueError, RecursionError, TypeError, AttributeError):
        return False  # the engine will say what is wrong with it


def prompt_of(route: Route, fields: Body) -> bytes:
    """The undecoded prompt, without what ends it: a conversation's next turn begins with the same bytes."""
    for name in route.prompt:
        raw = getattr(fields, name)
        if raw is not ABSENT:
            return bytes(raw)[:-1]
    return b""


def limit_of(fields: Body) -> int | None:
    """Most tokens of the answer, if the client said."""
    for given in (fields.max_completion_tokens, fields.max_tokens):
        if type(given) is int and given > 0:
            return given
    return None


def find_model(spec: FleetSpec, name: str) -> ModelSpec:
    """Raises ModelNotFound."""
    for model in spec.models:
        if model.name == name:
            return model
    raise ModelNotFound(name, (model.name for model in spec.models))


def model_list(spec: FleetSpec) -> dict[str, Any]:
    """The answer of `/v1/models`."""
    return {"object": "list", "data": [model_card(spec, model) for model in spec.models]}


def model_card(spec: FleetSpec, model: ModelSpec) -> dict[str, Any]:
    """The answer of `/v1/models/{id}`. Releases carry no date, and OpenAI's clients demand one."""
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": spec.name,
        **({"max_model_len": model.max_model_len} if model.max_model_len else {}),
    }


def _refused(error: msgspec.ValidationError) -> BadRequest:
    text = str(error)
    if "`$.stream`" in text:
        return BadRequest("'stream' must be true or false.", param="stream")
    if "`$.model`" in text or "field `model`" in text:
        return BadRequest("'model' is required, and must be a string.", param="model")
    return BadRequest("The request body must be a JSON object.")


def _check_prompt(route: Route, fields: Body) -> None:
    for name, begins in route.prompt.items():
        raw = getattr(fields, name)
        if raw is not ABSENT and _begins(raw) in begins:
            return
    name, begins = next(iter(route.prompt.items()))
    raise BadRequest(f"'{name}' is required, and must be {TYPE_NAMES[begins]}.", param=name)


def _begins(raw: msgspec.Raw) -> bytes:
    return bytes(memoryview(raw)[:1])
